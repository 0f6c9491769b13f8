package io.tallygate;

import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;

/**
 * Why a call was not served. Its subclasses say what the caller can do.
 *
 * <p>Nothing in it is secret.
 */
public abstract sealed class TallygateException extends RuntimeException
    permits InvalidRequestException,
        UnavailableException,
        DeadlineExceededException,
        CallCancelledException,
        UnauthenticatedException,
        PermissionDeniedException,
        NotFoundException,
        FailedPreconditionException,
        ResourceExhaustedException,
        InternalException,
        QuotaExceededException,
        BufferFullException,
        ClosedException,
        SpoolException {
  private static final long serialVersionUID = 1L;

  private final Status.Code code;
  private final String reason;
  private final String field;
  private final transient Duration retryAfter;
  private final String operationId;

  TallygateException(Fault fault) {
    super(fault.message(), fault.cause());
    this.code = fault.code();
    this.reason = fault.reason();
    this.field = fault.field();
    this.retryAfter = fault.retryAfter();
    this.operationId = fault.operationId();
  }

  /** The status with which the call ended. */
  public Status.Code code() {
    return code;
  }

  /** The service's reason, as {@code INVALID_FIELD}; empty where it gave none. */
  public String reason() {
    return reason;
  }

  /** The path of the field at fault, as {@code items[0].meter}; empty where no field is. */
  public String field() {
    return field;
  }

  /** When trying again can help; empty where that is not told. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(retryAfter);
  }

  /** The name of the logical call: a repeat under it is charged once. Empty where there is none. */
  public String operationId() {
    return operationId;
  }
}
