package io.tallygate;

/** What to do with usage beyond what was reserved. */
public enum Excess {
  /** Ask the limits for the difference; what they refuse is not recorded, and the reply says so. */
  ASK,
  /** The work is done: record it whatever the limits say. */
  RECORD
}
