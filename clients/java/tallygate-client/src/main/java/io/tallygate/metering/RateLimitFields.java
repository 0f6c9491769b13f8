package io.tallygate.metering;

import io.tallygate.Decision;
import io.tallygate.LimitState;
import io.tallygate.LimitStatus;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;

/**
 * Writes what a decision says of its limits as the structured fields {@code RateLimit} and
 * {@code RateLimit-Policy}.
 *
 * @param quotaUnits by meter, in which unit its limits count, as {@code content-bytes}
 * @param windows by limit, how many seconds its window lasts
 * @param clock tells how long it is until a window ends
 */
public record RateLimitFields(
    Map<String, String> quotaUnits, Map<String, Long> windows, Clock clock) {
  /** The name of the field that says what is left. */
  public static final String LIMIT = "RateLimit";

  /** The name of the field that says what the limits are. */
  public static final String POLICY = "RateLimit-Policy";

  /** Fields that say neither units nor windows. */
  public static final RateLimitFields PLAIN =
      new RateLimitFields(Map.of(), Map.of(), Clock.systemUTC());

  private static final long INTEGER_MAX = 999_999_999_999_999L;
  private static final int SHOWN_MAX = 10;

  /** Copies. */
  public RateLimitFields {
    quotaUnits = Map.copyOf(quotaUnits);
    windows = Map.copyOf(windows);
  }

  /** Returns the fields by name; none where there is no limit to show. */
  public Map<String, String> of(Decision decision) {
    List<LimitStatus> shown = shown(decision);
    if (shown.isEmpty()) {
      return Map.of();
    }
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put(POLICY, shown.stream().map(this::policy).collect(Collectors.joining(", ")));
    fields.put(
        LIMIT, shown.stream().map(each -> left(each, decision)).collect(Collectors.joining(", ")));
    return fields;
  }

  /** Returns whole seconds until the same could pass, at least 1; empty where it never can. */
  public static Optional<Long> retryAfter(Optional<Duration> wait) {
    return wait.map(each -> Math.max(1, seconds(each)));
  }

  private static List<LimitStatus> shown(Decision decision) {
    Map<List<String>, LimitStatus> least = new LinkedHashMap<>();
    for (LimitStatus limit : decision.limits()) {
      if (!limit.unlimited() && limit.state() != LimitState.SHADOW_EXCEEDED) {
        least.merge(
            List.of(limit.limitId(), limit.scope()),
            limit,
            (one, other) -> other.remaining() < one.remaining() ? other : one);
      }
    }
    List<LimitStatus> ordered = new ArrayList<>(least.values());
    String refusing = decision.refusedBy().orElse("");
    ordered.sort((one, other) -> Boolean.compare(
        other.limitId().equals(refusing), one.limitId().equals(refusing)));
    return ordered.subList(0, Math.min(ordered.size(), SHOWN_MAX));
  }

  private String policy(LimitStatus limit) {
    StringBuilder field = new StringBuilder(quoted(limit.limitId()));
    field.append(";q=").append(Math.min(limit.limit(), INTEGER_MAX));
    String unit = quotaUnits.get(limit.meter());
    if (unit != null) {
      field.append(";qu=").append(quoted(unit));
    }
    Long window = windows.get(limit.limitId());
    if (window != null) {
      field.append(";w=").append(window);
    }
    return field.append(partition(limit)).toString();
  }

  private String left(LimitStatus limit, Decision decision) {
    StringBuilder field = new StringBuilder(quoted(limit.limitId()));
    field.append(";r=").append(Math.min(limit.remaining(), INTEGER_MAX));
    Optional<Long> wait =
        limit.limitId().equals(decision.refusedBy().orElse(""))
            ? retryAfter(decision.retryAfter())
            : limit.resetsAt().map(at -> seconds(Duration.between(clock.instant(), at)));
    wait.ifPresent(seconds -> field.append(";t=").append(Math.max(0, seconds)));
    return field.append(partition(limit)).toString();
  }

  private static String partition(LimitStatus limit) {
    if (limit.scope().isEmpty()) {
      return "";
    }
    byte[] scope = limit.scope().getBytes(StandardCharsets.UTF_8);
    return ";pk=:" + Base64.getEncoder().encodeToString(scope) + ":";
  }

  /** Returns whole seconds, rounded up. */
  private static long seconds(Duration wait) {
    return wait.getSeconds() + (wait.getNano() > 0 ? 1 : 0);
  }

  private static String quoted(String text) {
    StringBuilder field = new StringBuilder("\"");
    text.chars()
        .forEach(
            each -> {
              if (each == '"' || each == '\\') {
                field.append('\\');
              }
              field.append(each >= ' ' && each <= '~' ? (char) each : '?');
            });
    return field.append('"').toString();
  }
}
