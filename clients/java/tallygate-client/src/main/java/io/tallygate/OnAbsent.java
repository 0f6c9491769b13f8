package io.tallygate;

/** Who decides when no answer comes from the sidecar. */
public enum OnAbsent {
  /** Nobody: the error is thrown. */
  CLOSED,
  /** The client, which grants. What it grants is counted, and recorded where there is a buffer. */
  OPEN
}
