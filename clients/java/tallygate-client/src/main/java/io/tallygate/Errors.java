package io.tallygate;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.tallygate.v1.ItemError;
import io.tallygate.v1.Reason;
import java.time.Duration;

/** Turns the ways in which calls fail into exceptions: the one table of them. */
final class Errors {
  private static final String DOMAIN = "tallygate";
  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

  private Errors() {}

  /**
   * Returns the exception for a call's end.
   *
   * @param asked whether the caller itself has cancelled
   */
  static TallygateException of(Throwable error, String operationId, boolean asked) {
    Status status = Status.fromThrowable(error);
    Metadata trailers = trailers(error);
    String message = status.getDescription() == null ? "" : status.getDescription();
    String reason = "";
    String field = "";
    Duration retryAfter = pushback(trailers);
    com.google.rpc.Status details =
        trailers == null ? null : StatusProto.fromStatusAndTrailers(status, trailers);
    if (details != null) {
      try {
        for (Any detail : details.getDetailsList()) {
          if (detail.is(ErrorInfo.class)) {
            ErrorInfo info = detail.unpack(ErrorInfo.class);
            reason = DOMAIN.equals(info.getDomain()) ? info.getReason() : reason;
          } else if (detail.is(BadRequest.class) && field.isEmpty()) {
            BadRequest bad = detail.unpack(BadRequest.class);
            field = bad.getFieldViolationsCount() > 0 ? bad.getFieldViolations(0).getField() : "";
          } else if (detail.is(RetryInfo.class)) {
            retryAfter = Convert.duration(detail.unpack(RetryInfo.class).getRetryDelay());
          }
        }
      } catch (InvalidProtocolBufferException broken) {
        message = message + " (with details that cannot be read)";
      }
    }
    Throwable cause = status.getCode() == Status.Code.UNKNOWN ? error : status.getCause();
    return made(
        new Fault(status.getCode(), message, reason, field, retryAfter, operationId, cause), asked);
  }

  /** Returns the exception for one item of a list. */
  static TallygateException of(ItemError error, String operationId) {
    Status.Code code = Status.fromCodeValue(error.getCode()).getCode();
    Reason reason = error.getReason();
    boolean named = reason != Reason.UNRECOGNIZED && reason != Reason.REASON_UNSPECIFIED;
    return made(
        new Fault(
            code,
            error.getMessage(),
            named ? reason.name().substring("REASON_".length()) : "",
            error.getField(),
            error.hasRetryAfter() ? Convert.duration(error.getRetryAfter()) : null,
            operationId,
            null),
        false);
  }

  /** Says whether no answer came, so that the local policy decides. */
  static boolean absent(TallygateException error) {
    return error instanceof UnavailableException || error instanceof DeadlineExceededException;
  }

  /** Says whether sending the same again can help. */
  static boolean again(TallygateException error) {
    return absent(error) || error.retryAfter().isPresent();
  }

  private static TallygateException made(Fault fault, boolean asked) {
    return switch (fault.code()) {
      case INVALID_ARGUMENT, OUT_OF_RANGE -> new InvalidRequestException(fault);
      case UNAVAILABLE -> new UnavailableException(fault);
      case CANCELLED ->
          asked ? new CallCancelledException(fault) : new UnavailableException(fault);
      case DEADLINE_EXCEEDED -> new DeadlineExceededException(fault);
      case UNAUTHENTICATED -> new UnauthenticatedException(fault);
      case PERMISSION_DENIED -> new PermissionDeniedException(fault);
      case NOT_FOUND -> new NotFoundException(fault);
      case FAILED_PRECONDITION, ALREADY_EXISTS, ABORTED -> new FailedPreconditionException(fault);
      case RESOURCE_EXHAUSTED -> new ResourceExhaustedException(fault);
      default -> new InternalException(fault);
    };
  }

  private static Metadata trailers(Throwable error) {
    if (error instanceof StatusRuntimeException known) {
      return known.getTrailers();
    }
    return error instanceof StatusException known ? known.getTrailers() : null;
  }

  /** Returns the pushback that trailers hold, or null. */
  static Duration pushback(Metadata trailers) {
    String text = trailers == null ? null : trailers.get(PUSHBACK);
    if (text == null) {
      return null;
    }
    try {
      long millis = Long.parseLong(text);
      return millis < 0 ? null : Duration.ofMillis(millis);
    } catch (NumberFormatException notNumber) {
      return null;
    }
  }
}
