package io.tallygate;

import io.grpc.Status;
import java.time.Duration;

/**
 * What an exception is made of.
 *
 * @param retryAfter null where it is not told
 * @param cause null where there is none
 */
record Fault(
    Status.Code code,
    String message,
    String reason,
    String field,
    Duration retryAfter,
    String operationId,
    Throwable cause) {
  static Fault of(Status.Code code, String message) {
    return new Fault(code, message, "", "", null, "", null);
  }

  static Fault of(Status.Code code, String message, Throwable cause) {
    return new Fault(code, message, "", "", null, "", cause);
  }
}
