package io.tallygate;

import java.util.List;

/**
 * What was taken back.
 *
 * @param eventId the id of the negative event
 * @param amount the units taken back, above 0
 * @param replayed whether this is the stored answer of an earlier call of the same name
 * @param durability how safely the event is held
 * @param limits the limits as they stand now
 * @param operationId the name of the logical call
 */
public record Refunded(
    String eventId,
    long amount,
    boolean replayed,
    Durability durability,
    List<LimitStatus> limits,
    String operationId) {
  /** Copies. */
  public Refunded {
    limits = List.copyOf(limits);
  }
}
