package io.tallygate;

import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * Whether work may be done. A refusal is a decision, not an exception.
 *
 * @param allowed whether the work may be done; if not, nothing was charged
 * @param limits every limit that applied, in the catalog's order
 * @param refusedBy the first limit that refused; empty when allowed
 * @param retryAfter when the same call could pass; empty when allowed, or when it never can
 * @param replayed whether this is the stored answer of an earlier call of the same name
 * @param durability how safely the events are held
 * @param eventIds one per item, in order; empty when nothing was recorded
 * @param degraded whether the limits' rules for an outage have decided
 * @param local whether the client itself has granted, as no answer came
 * @param operationId the name of the logical call
 */
public record Decision(
    boolean allowed,
    List<LimitStatus> limits,
    Optional<String> refusedBy,
    Optional<Duration> retryAfter,
    boolean replayed,
    Durability durability,
    List<String> eventIds,
    boolean degraded,
    boolean local,
    String operationId) {
  /** Copies. */
  public Decision {
    limits = List.copyOf(limits);
    eventIds = List.copyOf(eventIds);
  }

  /**
   * Returns this decision if it allows the work.
   *
   * @throws QuotaExceededException if it refuses
   */
  public Decision orThrow() {
    if (!allowed) {
      throw new QuotaExceededException(this);
    }
    return this;
  }

  /** Returns what the client itself grants where no answer comes. */
  static Decision granted(String operationId, List<String> eventIds) {
    return new Decision(
        true,
        List.of(),
        Optional.empty(),
        Optional.empty(),
        false,
        Durability.UNSPECIFIED,
        eventIds,
        false,
        true,
        operationId);
  }
}
