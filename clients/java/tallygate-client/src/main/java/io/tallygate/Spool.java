package io.tallygate;

import com.google.protobuf.MessageLite;
import io.tallygate.v1.BatchRecordUsageRequest;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import java.util.zip.CRC32;

/**
 * Keeps what waits in the buffer on disk, until it was sent or refused for good.
 *
 * <p>Its files are the same in every language: records of length, CRC-32 and payload, in files that
 * are deleted once nothing of them waits any more. All methods but {@link #sync} are called under
 * the buffer's lock.
 */
final class Spool {
  static final byte EVENT = 1;
  static final byte COMMIT = 2;
  static final byte COMMIT_OR_EVENTS = 3;
  static final String SUFFIX = ".spool";
  static final int HEADER = 8;

  private static final Logger LOG = System.getLogger("io.tallygate");
  private static final long SEGMENT_BYTES = 1 << 20;
  private static final long SEGMENT_AGE_NANOS = TimeUnit.SECONDS.toNanos(10);

  private final Path dir;
  private final SpoolLock lock;
  private final Duration syncEvery;
  private final long maxBytes;
  private final Counters counters;
  private final List<Segment> segments = new ArrayList<>();
  private long next;
  private Segment current;
  private volatile Segment dirty;
  private volatile boolean renamed;

  private Spool(Path dir, SpoolLock lock, BufferOptions options, Counters counters) {
    this.dir = dir;
    this.lock = lock;
    this.syncEvery = options.spoolSync();
    this.maxBytes = options.spoolMaxBytes();
    this.counters = counters;
  }

  /** Takes the directory, and reads what a process before this one has left into `left`. */
  static Spool open(Path dir, BufferOptions options, Counters counters, List<Entry> left) {
    try {
      Files.createDirectories(dir);
    } catch (IOException error) {
      throw new SpoolException("the spool's directory cannot be made", error);
    }
    SpoolLock lock = SpoolLock.take(dir);
    try {
      Spool spool = new Spool(dir, lock, options, counters);
      spool.read(left);
      return spool;
    } catch (IOException | RuntimeException error) {
      lock.close();
      throw error instanceof TallygateException known
          ? known
          : new SpoolException("the spool cannot be read", error);
    }
  }

  long bytes() {
    return segments.stream().mapToLong(segment -> segment.bytes).sum();
  }

  /** Keeps an entry before anybody is told that it was taken. */
  void keep(Entry entry) {
    byte[] record = record(entry);
    if (bytes() + record.length > maxBytes) {
      throw new BufferFullException("the spool is full: " + maxBytes + " bytes");
    }
    try {
      Segment segment = writable();
      try {
        segment.write(record);
      } catch (IOException error) {
        // What stands in it is whole; what comes next goes to another file.
        current = null;
        throw error;
      }
      segment.unresolved++;
      entry.segment = java.util.Optional.of(segment);
      dirty = segment;
      if (syncEvery.isZero()) {
        sync();
      }
    } catch (IOException error) {
      throw new SpoolException("the spool cannot be written", error);
    }
  }

  /** Forgets an entry that was sent or refused for good. */
  void forget(Entry entry) {
    Segment segment = entry.segment.orElseThrow();
    segment.unresolved--;
    if (segment.unresolved == 0) {
      drop(segment);
    }
  }

  /** Syncs what has been written since the last time. */
  void sync() throws IOException {
    Segment segment = dirty;
    if (segment == null) {
      return;
    }
    dirty = null;
    segment.sync();
    if (renamed) {
      renamed = false;
      try (FileChannel folder = FileChannel.open(dir, StandardOpenOption.READ)) {
        folder.force(true);
      }
    }
  }

  void close() {
    try {
      if (current != null) {
        current.close();
      }
    } catch (IOException error) {
      LOG.log(Level.WARNING, "the spool could not be synced", error);
    } finally {
      lock.close();
    }
  }

  private Segment writable() throws IOException {
    if (current != null
        && (current.bytes >= SEGMENT_BYTES
            || System.nanoTime() - current.since >= SEGMENT_AGE_NANOS)) {
      Segment full = current;
      current = null;
      full.close();
    }
    if (current == null) {
      current = Segment.create(dir.resolve(String.format("%016d%s", next, SUFFIX)));
      next++;
      segments.add(current);
      renamed = true;
    }
    return current;
  }

  private void drop(Segment segment) {
    segments.remove(segment);
    if (segment == current) {
      current = null;
    }
    if (segment == dirty) {
      dirty = null;
    }
    try {
      segment.delete();
    } catch (IOException error) {
      // It is sent again at the next start, and is known by its ids then.
      LOG.log(Level.WARNING, "a file of the spool could not be deleted", error);
    }
  }

  private void read(List<Entry> left) throws IOException {
    List<Path> files;
    try (Stream<Path> found = Files.list(dir)) {
      files = found.filter(SpoolReader::named).sorted().toList();
    }
    for (Path file : files) {
      next = Math.max(next, SpoolReader.number(file) + 1);
      SpoolReader reader = new SpoolReader(file);
      List<Entry> entries = reader.read();
      if (reader.torn()) {
        counters.spoolTorn.increment();
      }
      if (entries.isEmpty()) {
        Files.deleteIfExists(file);
        continue;
      }
      Segment segment = Segment.found(file, reader.bytes());
      segment.unresolved = entries.size();
      segments.add(segment);
      entries.forEach(entry -> entry.segment = java.util.Optional.of(segment));
      left.addAll(entries);
    }
  }

  private static byte[] record(Entry entry) {
    byte[] payload;
    if (entry.commit.isEmpty()) {
      payload = payload(EVENT, entry.events.get(0));
    } else {
      byte[] commit = entry.commit.get().toByteArray();
      byte[] events =
          BatchRecordUsageRequest.newBuilder()
              .addAllRequests(entry.events)
              .build()
              .toByteArray();
      payload =
          ByteBuffer.allocate(1 + Integer.BYTES + commit.length + events.length)
              .order(ByteOrder.LITTLE_ENDIAN)
              .put(COMMIT_OR_EVENTS)
              .putInt(commit.length)
              .put(commit)
              .put(events)
              .array();
    }
    CRC32 crc = new CRC32();
    crc.update(payload);
    return ByteBuffer.allocate(HEADER + payload.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putInt(payload.length)
        .putInt((int) crc.getValue())
        .put(payload)
        .array();
  }

  private static byte[] payload(byte kind, MessageLite message) {
    return ByteBuffer.allocate(1 + message.getSerializedSize())
        .put(kind)
        .put(message.toByteArray())
        .array();
  }
}
