package io.tallygate.spring;

import io.tallygate.ClosedException;
import io.tallygate.DeadlineExceededException;
import io.tallygate.Decision;
import io.tallygate.InvalidRequestException;
import io.tallygate.ResourceExhaustedException;
import io.tallygate.TallygateException;
import io.tallygate.UnavailableException;
import io.tallygate.metering.RateLimitFields;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * An answer that is not the app's: a problem as of RFC 9457.
 *
 * @param status the status of the response
 * @param type names the kind of problem
 * @param title the kind, for people
 * @param detail this one, for people; it names no tenant
 * @param operationId the name of the logical call; empty where there is none
 * @param headers what the response says in its head
 * @param violated the limits that refused
 */
public record Problem(
    int status,
    String type,
    String title,
    String detail,
    String operationId,
    Map<String, String> headers,
    List<String> violated) {
  private static final Logger LOG = System.getLogger("io.tallygate");
  private static final String OURS = "urn:tallygate:problem:";
  private static final String QUOTA =
      "https://iana.org/assignments/http-problem-types#quota-exceeded";
  private static final Set<String> TENANT_REASONS = Set.of("UNKNOWN_TENANT", "TENANT_SUSPENDED");

  /** Copies. */
  public Problem {
    headers = Map.copyOf(headers);
    violated = List.copyOf(violated);
  }

  /** Returns the body, in the order in which people read it. */
  public Map<String, Object> body() {
    Map<String, Object> body = new LinkedHashMap<>();
    body.put("type", type);
    body.put("title", title);
    body.put("status", status);
    body.put("detail", detail);
    if (!violated.isEmpty()) {
      body.put("violated-policies", violated);
    }
    if (!operationId.isEmpty()) {
      body.put("operation_id", operationId);
    }
    return body;
  }

  static Problem refused(Decision decision) {
    String limit = decision.refusedBy().orElse("unknown");
    Map<String, String> headers =
        RateLimitFields.retryAfter(decision.retryAfter())
            .map(seconds -> Map.of("Retry-After", seconds.toString()))
            .orElse(Map.of());
    return new Problem(
        429,
        QUOTA,
        "Quota exceeded",
        "The limit " + limit + " is used up.",
        decision.operationId(),
        headers,
        List.of(limit));
  }

  static Problem noTenant(Optional<String> challenge) {
    return new Problem(
        challenge.isPresent() ? 401 : 400,
        OURS + "tenant-missing",
        "Tenant missing",
        "The request names nobody to charge.",
        "",
        challenge.map(each -> Map.of("WWW-Authenticate", each)).orElse(Map.of()),
        List.of());
  }

  static Problem failed(TallygateException error) {
    if (error instanceof UnavailableException
        || error instanceof DeadlineExceededException
        || error instanceof ResourceExhaustedException
        || error instanceof ClosedException) {
      long wait = RateLimitFields.retryAfter(error.retryAfter()).orElse(1L);
      return of(
          error,
          503,
          "metering-unavailable",
          "Metering unavailable",
          "Whether the request is within its limits cannot be told now.",
          Map.of("Retry-After", Long.toString(wait)));
    }
    if (error instanceof InvalidRequestException && error.field().equals("tenant_id")) {
      return of(
          error, 400, "tenant-invalid", "Tenant invalid", "The tenant's name is not valid.",
          Map.of());
    }
    if (TENANT_REASONS.contains(error.reason())) {
      return of(
          error, 403, "tenant-refused", "Tenant refused", "The tenant may not do this.", Map.of());
    }
    LOG.log(
        Level.ERROR,
        "metering failed: {0} {1}, field {2}, operation {3}",
        error.code(),
        error.reason(),
        error.field(),
        error.operationId());
    return new Problem(
        500,
        OURS + "metering-failed",
        "Metering failed",
        "The request could not be charged.",
        "",
        Map.of(),
        List.of());
  }

  private static Problem of(
      TallygateException error,
      int status,
      String type,
      String title,
      String detail,
      Map<String, String> headers) {
    return new Problem(
        status, OURS + type, title, detail, error.operationId(), headers, List.of());
  }
}
