package io.tallygate;

/** Where a tenant stands against one limit. */
public enum LimitState {
  /** A state that this version of the client does not know. */
  UNSPECIFIED,
  /** Below every warning threshold. */
  OK,
  /** At or above a warning threshold. */
  WARNING,
  /** The limit is passed, or this call would pass it. */
  EXCEEDED,
  /** As EXCEEDED, on a limit that only observes. */
  SHADOW_EXCEEDED
}
