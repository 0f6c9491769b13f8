package io.tallygate;

/**
 * Usage that was accepted.
 *
 * @param eventId the event's id, as it travels on
 * @param replayed whether the same event had been accepted before
 * @param durability how safely it is held
 * @param degraded whether Redis could not be reached, and the sidecar alone holds it
 */
public record Recorded(
    String eventId, boolean replayed, Durability durability, boolean degraded) {}
