package io.tallygate.grpc;

import java.util.Objects;

/**
 * How a stream's messages are charged.
 *
 * @param meter the meter that counts them
 * @param reserve how many are held before the first
 * @param count which of them count
 */
public record Messages(String meter, long reserve, Count count) {
  /** Which messages count. */
  public enum Count {
    /** Those that the server sends. */
    SENT,
    /** Those that it receives. */
    RECEIVED,
    /** All. */
    BOTH
  }

  /** Checks. */
  public Messages {
    Objects.requireNonNull(meter, "meter");
    Objects.requireNonNull(count, "count");
  }

  boolean sent() {
    return count != Count.RECEIVED;
  }

  boolean received() {
    return count != Count.SENT;
  }
}
