package io.tallygate;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What stands on disk is the same in every language, and whole or set aside. */
class SpoolTest {
  private static final BufferOptions OPTIONS = BufferOptions.DEFAULT;
  private static final RecordUsageRequest EVENT =
      RecordUsageRequest.newBuilder().setTenantId("acme").setEventId("e-1").build();

  @TempDir private Path dir;
  private final Counters counters = new Counters(Hooks.NONE);
  private final List<Entry> left = new ArrayList<>();

  private Spool open() {
    return open(OPTIONS);
  }

  private Spool open(BufferOptions options) {
    return Spool.open(dir, options, counters, left);
  }

  private List<Path> files(String suffix) throws IOException {
    try (Stream<Path> found = Files.list(dir)) {
      return found.filter(each -> each.toString().endsWith(suffix)).sorted().toList();
    }
  }

  @Test
  void aRecordIsItsLengthItsSumAndItsPayload() throws IOException {
    Spool spool = open();
    spool.keep(Entry.of(EVENT));
    spool.close();
    Path file = dir.resolve("0000000000000000.spool");
    ByteBuffer content =
        ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
    byte[] message = EVENT.toByteArray();
    assertEquals(message.length + 1, content.getInt());
    CRC32 crc = new CRC32();
    crc.update(1);
    crc.update(message);
    assertEquals((int) crc.getValue(), content.getInt());
    assertEquals(1, content.get());
    byte[] found = new byte[content.remaining()];
    content.get(found);
    assertArrayEquals(message, found);
  }

  @Test
  void whatWasKeptIsFoundAgainUntilItIsForgotten() throws IOException {
    CommitRequest commit = CommitRequest.newBuilder().setReservationId("00-op").build();
    Spool spool = open();
    spool.keep(Entry.of(EVENT));
    spool.keep(Entry.of(commit, List.of(EVENT)));
    spool.close();
    Spool again = open();
    assertEquals(2, left.size());
    assertEquals(EVENT, left.get(0).events.get(0));
    assertEquals(commit, left.get(1).commit.orElseThrow());
    assertEquals(List.of(EVENT), left.get(1).events);
    again.keep(Entry.of(EVENT));
    assertEquals(2, files(".spool").size());
    again.forget(left.get(0));
    assertEquals(2, files(".spool").size());
    again.forget(left.get(1));
    assertEquals(List.of(dir.resolve("0000000000000001.spool")), files(".spool"));
    again.close();
  }

  @Test
  void whatIsTornIsSetAsideOnce() throws IOException {
    Spool spool = open();
    spool.keep(Entry.of(EVENT));
    spool.keep(Entry.of(EVENT));
    spool.close();
    Path file = files(".spool").get(0);
    byte[] content = Files.readAllBytes(file);
    content[content.length - 1] ^= 1;
    Files.write(file, content, StandardOpenOption.TRUNCATE_EXISTING);
    open().close();
    assertEquals(1, left.size());
    assertEquals(1, counters.spoolTorn.sum());
    assertEquals(1, files(".bad").size());
    left.clear();
    open().close();
    assertEquals(1, left.size());
    assertEquals(1, counters.spoolTorn.sum());
  }

  @Test
  void aFileOfRubbishIsSetAside() throws IOException {
    Files.write(dir.resolve("0000000000000007.spool"), new byte[] {-1, -1, -1, -1, 0, 0, 0, 0, 9});
    Spool spool = open();
    assertTrue(left.isEmpty());
    spool.keep(Entry.of(EVENT));
    assertEquals(List.of(dir.resolve("0000000000000008.spool")), files(".spool"));
    spool.close();
  }

  @Test
  void aDirectoryHasOneHolder() throws IOException {
    Spool spool = open();
    String line = Files.readString(dir.resolve("lock"));
    assertTrue(line.matches(ProcessHandle.current().pid() + " \\d+\n"), line);
    SpoolException error = assertThrows(SpoolException.class, this::open);
    assertTrue(error.locked());
    spool.close();
    open().close();
  }

  @Test
  void aLineOfAProcessThatLivesHoldsTheDirectory() throws Exception {
    Process other = new ProcessBuilder("sleep", "60").start();
    try {
      Path lock = dir.resolve("lock");
      String stat = Files.readString(Path.of("/proc/" + other.pid() + "/stat"));
      String ticks = stat.substring(stat.lastIndexOf(')') + 2).split(" ")[19];
      Files.writeString(lock, other.pid() + " " + ticks + "\n");
      assertTrue(assertThrows(SpoolException.class, this::open).locked());
      Files.writeString(lock, other.pid() + " 1\n");
      open().close();
    } finally {
      other.destroyForcibly().waitFor();
    }
  }

  @Test
  void whatHasNoRoomIsRefused() {
    Spool spool = open(OPTIONS.withSpoolMaxBytes(30));
    spool.keep(Entry.of(EVENT));
    assertThrows(BufferFullException.class, () -> spool.keep(Entry.of(EVENT)));
    spool.close();
  }

  @Test
  void aDirectoryThatCannotBeMadeIsTold() throws IOException {
    Path file = Files.write(dir.resolve("file"), "x".getBytes(StandardCharsets.US_ASCII));
    SpoolException error =
        assertThrows(
            SpoolException.class,
            () -> Spool.open(file.resolve("below"), OPTIONS, counters, left));
    assertFalse(error.locked());
  }

  @Test
  void anInterruptedThreadBreaksNothing() {
    Spool spool = open(OPTIONS.withSpoolSync(Duration.ZERO));
    Thread.currentThread().interrupt();
    try {
      spool.keep(Entry.of(EVENT));
    } catch (SpoolException synced) {
      // The folder's own sync may end by it; the file must not.
      assertTrue(Thread.currentThread().isInterrupted());
    } finally {
      assertTrue(Thread.interrupted());
    }
    spool.keep(Entry.of(EVENT));
    spool.close();
  }
}
