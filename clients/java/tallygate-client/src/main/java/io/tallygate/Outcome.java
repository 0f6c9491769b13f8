package io.tallygate;

/** What became of a reservation. */
public enum Outcome {
  /** An outcome that this version of the client does not know. */
  UNSPECIFIED,
  /** Settled now, in full. */
  COMMITTED,
  /** Settled now, but what went beyond the reservation was refused and is not recorded. */
  COMMITTED_PARTIALLY,
  /** Given back now. */
  RELEASED,
  /** Its end was moved now. */
  EXTENDED,
  /** Nothing done: it had been committed before. */
  ALREADY_COMMITTED,
  /** Nothing done: it had been released before. */
  ALREADY_RELEASED,
  /** It had expired, and its units had come back. A commit's usage was recorded nevertheless. */
  EXPIRED,
  /** No answer came: the client's buffer has the commit, and sends it until it is answered. */
  BUFFERED
}
