package io.tallygate.metering;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.tallygate.Decision;
import io.tallygate.Durability;
import io.tallygate.LimitState;
import io.tallygate.LimitStatus;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/** What a decision says in the head of a response. */
class RateLimitFieldsTest {
  private static final Instant NOW = Instant.parse("2026-01-01T00:00:00Z");
  private static final RateLimitFields FIELDS =
      new RateLimitFields(
          Map.of("egress", "content-bytes"),
          Map.of("minute", 60L),
          Clock.fixed(NOW, ZoneOffset.UTC));

  private static LimitStatus limit(
      String id, String meter, LimitState state, long remaining, String scope, Instant resets) {
    return new LimitStatus(
        id, meter, state, 0, 100, remaining, Optional.ofNullable(resets), "acme", scope, false);
  }

  private static Decision decision(String refusedBy, Duration retryAfter, LimitStatus... limits) {
    return new Decision(
        refusedBy == null,
        List.of(limits),
        Optional.ofNullable(refusedBy),
        Optional.ofNullable(retryAfter),
        false,
        Durability.REDIS,
        List.of(),
        false,
        false,
        "op");
  }

  @Test
  void limitsAreWrittenInTheirOrder() {
    Map<String, String> fields =
        FIELDS.of(
            decision(
                null,
                null,
                limit("minute", "requests", LimitState.OK, 41, "", NOW.plusMillis(16_001)),
                limit("month", "egress", LimitState.OK, Long.MAX_VALUE, "", null)));
    assertEquals(
        "\"minute\";q=100;w=60, \"month\";q=100;qu=\"content-bytes\"",
        fields.get(RateLimitFields.POLICY));
    assertEquals(
        "\"minute\";r=41;t=17, \"month\";r=999999999999999", fields.get(RateLimitFields.LIMIT));
  }

  @Test
  void whoRefusesComesFirstAndSaysTheSameAsRetryAfter() {
    Map<String, String> fields =
        FIELDS.of(
            decision(
                "b",
                Duration.ofMillis(2_100),
                limit("a", "requests", LimitState.OK, 1, "", NOW),
                limit("b", "requests", LimitState.EXCEEDED, 0, "", NOW.plusSeconds(2))));
    assertEquals("\"b\";r=0;t=3, \"a\";r=1;t=0", fields.get(RateLimitFields.LIMIT));
    assertEquals(3, RateLimitFields.retryAfter(Optional.of(Duration.ofMillis(2_100))).get());
    assertEquals(1, RateLimitFields.retryAfter(Optional.of(Duration.ZERO)).get());
  }

  @Test
  void ofOneIdAndScopeTheLeastIsShown() {
    Map<String, String> fields =
        FIELDS.of(
            decision(
                null,
                null,
                limit("a\"\u00fc", "requests", LimitState.OK, 9, "model=x", null),
                limit("a\"\u00fc", "requests", LimitState.OK, 3, "model=x", null),
                limit("shadow", "requests", LimitState.SHADOW_EXCEEDED, 0, "", null)));
    assertEquals("\"a\\\"?\";r=3;pk=:bW9kZWw9eA==:", fields.get(RateLimitFields.LIMIT));
  }

  @Test
  void withoutLimitsThereAreNoFields() {
    assertEquals(Map.of(), FIELDS.of(decision(null, null)));
  }
}
