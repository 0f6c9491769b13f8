package io.tallygate;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import java.util.Optional;

/**
 * How usage is buffered.
 *
 * @param maxEvents entries that may wait; more are refused
 * @param batch entries sent at once, at most 500
 * @param flushEvery how long entries wait for others
 * @param spoolDir where entries are kept until they were sent; empty for memory alone
 * @param spoolSync how often the spool is synced to the disk; zero for each entry
 * @param spoolMaxBytes what the spool may take; more is refused
 */
public record BufferOptions(
    int maxEvents,
    int batch,
    Duration flushEvery,
    Optional<Path> spoolDir,
    Duration spoolSync,
    long spoolMaxBytes) {
  /** The most that is sent at once. */
  public static final int BATCH_MAX = 500;

  /** 10,000 entries in memory, 500 at once, every 100 ms. */
  public static final BufferOptions DEFAULT =
      new BufferOptions(
          10_000,
          BATCH_MAX,
          Duration.ofMillis(100),
          Optional.empty(),
          Duration.ofMillis(100),
          64L << 20);

  /** Checks. */
  public BufferOptions {
    require(maxEvents >= 1, "maxEvents is at least 1");
    require(batch >= 1 && batch <= BATCH_MAX, "batch is 1 to " + BATCH_MAX);
    require(!flushEvery.isNegative(), "flushEvery is not negative");
    require(!spoolSync.isNegative(), "spoolSync is not negative");
    require(spoolMaxBytes >= 1, "spoolMaxBytes is at least 1");
    Objects.requireNonNull(spoolDir, "spoolDir");
  }

  /** Returns the same with another bound of entries. */
  public BufferOptions withMaxEvents(int maxEvents) {
    return new BufferOptions(maxEvents, batch, flushEvery, spoolDir, spoolSync, spoolMaxBytes);
  }

  /** Returns the same with another size of what is sent at once. */
  public BufferOptions withBatch(int batch) {
    return new BufferOptions(maxEvents, batch, flushEvery, spoolDir, spoolSync, spoolMaxBytes);
  }

  /** Returns the same with another time to wait for others. */
  public BufferOptions withFlushEvery(Duration flushEvery) {
    return new BufferOptions(maxEvents, batch, flushEvery, spoolDir, spoolSync, spoolMaxBytes);
  }

  /** Returns the same with a spool on disk: what it has taken survives the process. */
  public BufferOptions withSpool(Path spoolDir) {
    return new BufferOptions(
        maxEvents, batch, flushEvery, Optional.of(spoolDir), spoolSync, spoolMaxBytes);
  }

  /** Returns the same with another time between syncs; zero syncs each entry. */
  public BufferOptions withSpoolSync(Duration spoolSync) {
    return new BufferOptions(maxEvents, batch, flushEvery, spoolDir, spoolSync, spoolMaxBytes);
  }

  /** Returns the same with another bound of the spool. */
  public BufferOptions withSpoolMaxBytes(long spoolMaxBytes) {
    return new BufferOptions(maxEvents, batch, flushEvery, spoolDir, spoolSync, spoolMaxBytes);
  }

  private static void require(boolean holds, String what) {
    if (!holds) {
      throw new IllegalArgumentException(what);
    }
  }
}
