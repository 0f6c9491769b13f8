package io.tallygate;

/**
 * How a reservation was given back.
 *
 * @param outcome what became of it
 * @param replayed whether this is the stored answer of an earlier call of the same name
 * @param operationId the name of the logical call
 */
public record Released(Outcome outcome, boolean replayed, String operationId) {}
