package io.tallygate.metering;

/** When a request is charged. */
public enum MeteringMode {
  /** Held before, and settled after by what it came to. */
  RESERVE,
  /** Charged before, and refunded after where it has failed: for a fixed cost. */
  CONSUME
}
