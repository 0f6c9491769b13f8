package io.tallygate;

import com.google.protobuf.InvalidProtocolBufferException;
import io.tallygate.v1.BatchRecordUsageRequest;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;
import java.util.zip.CRC32;

/** Reads one file of a spool, up to the first record that is not whole. */
final class SpoolReader {
  private static final Pattern NAME = Pattern.compile("\\d{16}\\" + Spool.SUFFIX);

  private final Path file;
  private long bytes;
  private boolean torn;

  SpoolReader(Path file) {
    this.file = file;
  }

  static boolean named(Path file) {
    return NAME.matcher(file.getFileName().toString()).matches();
  }

  static long number(Path file) {
    String name = file.getFileName().toString();
    return Long.parseLong(name.substring(0, name.length() - Spool.SUFFIX.length()));
  }

  /** Whether the file was damaged, as by a process that was killed while it wrote. */
  boolean torn() {
    return torn;
  }

  /** How much of it was whole. */
  long bytes() {
    return bytes;
  }

  /** Returns what it holds; what is not whole is set aside, so that it is met once. */
  List<Entry> read() throws IOException {
    ByteBuffer content = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
    List<Entry> entries = new ArrayList<>();
    while (content.hasRemaining()) {
      Optional<Entry> entry = next(content);
      if (entry.isEmpty()) {
        torn = true;
        setAside(content);
        break;
      }
      entries.add(entry.get());
      bytes = content.position();
    }
    return entries;
  }

  /** Returns the next entry, or none, and the buffer as it was. */
  private static Optional<Entry> next(ByteBuffer content) {
    int start = content.position();
    if (content.remaining() >= Spool.HEADER) {
      int length = content.getInt();
      int crc = content.getInt();
      if (length >= 1 && length <= content.remaining()) {
        byte[] payload = new byte[length];
        content.get(payload);
        CRC32 found = new CRC32();
        found.update(payload);
        if ((int) found.getValue() == crc) {
          try {
            return Optional.of(entry(payload));
          } catch (InvalidProtocolBufferException unknown) {
            // Whole, but of no kind that is known here: as good as damaged.
            content.position(start);
            return Optional.empty();
          }
        }
      }
    }
    content.position(start);
    return Optional.empty();
  }

  private static Entry entry(byte[] payload) throws InvalidProtocolBufferException {
    byte[] message = Arrays.copyOfRange(payload, 1, payload.length);
    switch (payload[0]) {
      case Spool.EVENT:
        return Entry.of(RecordUsageRequest.parseFrom(message));
      case Spool.COMMIT:
        return Entry.of(CommitRequest.parseFrom(message), List.of());
      case Spool.COMMIT_OR_EVENTS:
        ByteBuffer parts = ByteBuffer.wrap(message).order(ByteOrder.LITTLE_ENDIAN);
        int length = message.length < Integer.BYTES ? -1 : parts.getInt();
        if (length < 0 || length > parts.remaining()) {
          throw new InvalidProtocolBufferException("a commit that is shorter than it says");
        }
        int from = Integer.BYTES;
        return Entry.of(
            CommitRequest.parseFrom(Arrays.copyOfRange(message, from, from + length)),
            BatchRecordUsageRequest.parseFrom(
                    Arrays.copyOfRange(message, from + length, message.length))
                .getRequestsList());
      default:
        throw new InvalidProtocolBufferException("an unknown kind of record");
    }
  }

  private void setAside(ByteBuffer content) throws IOException {
    int start = content.position();
    byte[] rest = Arrays.copyOfRange(content.array(), start, content.limit());
    Path bad = file.resolveSibling(file.getFileName() + ".bad");
    Files.write(bad, rest, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING,
        StandardOpenOption.WRITE, StandardOpenOption.SYNC);
    try (var channel = java.nio.channels.FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.truncate(start);
      channel.force(true);
    }
  }
}
