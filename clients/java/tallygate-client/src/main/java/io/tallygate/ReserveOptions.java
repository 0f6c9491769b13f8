package io.tallygate;

import java.time.Duration;
import java.util.Objects;
import java.util.Optional;

/**
 * How units are held.
 *
 * @param ttl after this long without a sign of life they come back by themselves; empty for 60 s
 * @param excess what to do with usage beyond what was reserved
 * @param keepAlive whether the client extends the reservation until it is settled
 */
public record ReserveOptions(Optional<Duration> ttl, Excess excess, boolean keepAlive) {
  /** The service's own time, kept alive; what was used is recorded in full. */
  public static final ReserveOptions DEFAULT =
      new ReserveOptions(Optional.empty(), Excess.RECORD, true);

  static final Duration DEFAULT_TTL = Duration.ofSeconds(60);

  /** Checks. */
  public ReserveOptions {
    Objects.requireNonNull(ttl, "ttl");
    Objects.requireNonNull(excess, "excess");
  }

  /** Returns the same with another time. */
  public ReserveOptions withTtl(Duration ttl) {
    return new ReserveOptions(Optional.of(ttl), excess, keepAlive);
  }

  /** Returns the same with another treatment of what goes beyond. */
  public ReserveOptions withExcess(Excess excess) {
    return new ReserveOptions(ttl, excess, keepAlive);
  }

  /** Returns the same, kept alive or not. */
  public ReserveOptions withKeepAlive(boolean keepAlive) {
    return new ReserveOptions(ttl, excess, keepAlive);
  }
}
