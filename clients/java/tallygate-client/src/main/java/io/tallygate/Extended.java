package io.tallygate;

import java.time.Instant;
import java.util.Optional;

/**
 * When a reservation ends.
 *
 * @param outcome what became of it
 * @param expiresAt the new end; empty unless it was moved
 */
public record Extended(Outcome outcome, Optional<Instant> expiresAt) {}
