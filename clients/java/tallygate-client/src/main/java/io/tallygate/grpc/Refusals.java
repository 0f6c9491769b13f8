package io.tallygate.grpc;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.tallygate.ClosedException;
import io.tallygate.Decision;
import io.tallygate.DeadlineExceededException;
import io.tallygate.InvalidRequestException;
import io.tallygate.ResourceExhaustedException;
import io.tallygate.TallygateException;
import io.tallygate.UnavailableException;
import io.tallygate.metering.RateLimitFields;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** The statuses of calls that the handler never sees. */
final class Refusals {
  private static final Logger LOG = System.getLogger("io.tallygate");
  private static final Set<String> TENANT_REASONS = Set.of("UNKNOWN_TENANT", "TENANT_SUSPENDED");

  private Refusals() {}

  /** A status with its details. */
  record Refusal(Status status, Metadata trailers) {}

  static Refusal refused(Decision decision) {
    String limit = decision.refusedBy().orElse("unknown");
    com.google.rpc.Status.Builder message =
        status(Code.RESOURCE_EXHAUSTED, "limit " + limit + " refuses")
            .addDetails(
                Any.pack(
                    QuotaFailure.newBuilder()
                        .addViolations(
                            QuotaFailure.Violation.newBuilder()
                                .setSubject("limit:" + limit)
                                .setDescription("the limit is used up"))
                        .build()))
            .addDetails(
                Any.pack(
                    ErrorInfo.newBuilder()
                        .setReason("QUOTA_EXCEEDED")
                        .setDomain("tallygate")
                        .build()));
    decision.retryAfter().ifPresent(wait -> message.addDetails(retry(wait)));
    return made(message);
  }

  static Refusal noTenant(boolean unauthenticated) {
    return made(
        status(
            unauthenticated ? Code.UNAUTHENTICATED : Code.INVALID_ARGUMENT,
            "the call names no tenant"));
  }

  static Refusal failed(TallygateException error) {
    if (error instanceof UnavailableException
        || error instanceof DeadlineExceededException
        || error instanceof ResourceExhaustedException
        || error instanceof ClosedException) {
      java.time.Duration wait = error.retryAfter().orElse(java.time.Duration.ofSeconds(1));
      return made(
          status(Code.UNAVAILABLE, "metering is not available").addDetails(retry(wait)));
    }
    if (error instanceof InvalidRequestException && error.field().equals("tenant_id")) {
      return made(status(Code.INVALID_ARGUMENT, "the tenant's name is not valid"));
    }
    if (TENANT_REASONS.contains(error.reason())) {
      return made(status(Code.PERMISSION_DENIED, "the tenant is refused"));
    }
    LOG.log(
        Level.ERROR,
        "metering failed: {0} {1}, field {2}, operation {3}",
        error.code(),
        error.reason(),
        error.field(),
        error.operationId());
    return made(status(Code.INTERNAL, "metering failed"));
  }

  static void put(Metadata trailers, Map<String, String> fields) {
    Optional.ofNullable(fields.get(RateLimitFields.LIMIT))
        .ifPresent(text -> trailers.put(MeteringInterceptor.LIMIT, text));
    Optional.ofNullable(fields.get(RateLimitFields.POLICY))
        .ifPresent(text -> trailers.put(MeteringInterceptor.POLICY, text));
  }

  private static com.google.rpc.Status.Builder status(Code code, String message) {
    return com.google.rpc.Status.newBuilder().setCode(code.getNumber()).setMessage(message);
  }

  private static Any retry(java.time.Duration wait) {
    Duration delay =
        Duration.newBuilder().setSeconds(wait.getSeconds()).setNanos(wait.getNano()).build();
    return Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build());
  }

  private static Refusal made(com.google.rpc.Status.Builder message) {
    StatusRuntimeException error = StatusProto.toStatusRuntimeException(message.build());
    return new Refusal(error.getStatus(), error.getTrailers());
  }
}
