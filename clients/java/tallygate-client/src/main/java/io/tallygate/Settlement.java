package io.tallygate;

import java.util.List;
import java.util.Optional;

/**
 * How a reservation was settled.
 *
 * @param outcome what became of it
 * @param limits the limits of its items as they stand now; empty unless settled now
 * @param refusedBy of COMMITTED_PARTIALLY: the first limit that refused the excess
 * @param unrecorded of COMMITTED_PARTIALLY: per item, what was used but not recorded
 * @param replayed whether this is the stored answer of an earlier call of the same name
 * @param durability how safely the events are held
 * @param eventIds the events recorded
 * @param operationId the name of the logical call
 */
public record Settlement(
    Outcome outcome,
    List<LimitStatus> limits,
    Optional<String> refusedBy,
    List<Long> unrecorded,
    boolean replayed,
    Durability durability,
    List<String> eventIds,
    String operationId) {
  /** Copies. */
  public Settlement {
    limits = List.copyOf(limits);
    unrecorded = List.copyOf(unrecorded);
    eventIds = List.copyOf(eventIds);
  }

  static Settlement of(Outcome outcome, List<String> eventIds, String operationId) {
    return new Settlement(
        outcome,
        List.of(),
        Optional.empty(),
        List.of(),
        false,
        Durability.UNSPECIFIED,
        eventIds,
        operationId);
  }
}
