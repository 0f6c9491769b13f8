package io.tallygate;

import io.grpc.Status;

/** The client is closed. */
public final class ClosedException extends TallygateException {
  private static final long serialVersionUID = 1L;

  ClosedException(String message) {
    super(Fault.of(Status.Code.FAILED_PRECONDITION, message));
  }
}
