package io.tallygate;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.Set;

/**
 * Keeps a spool's directory to one buffer of one process, whatever language the others are in: by a
 * POSIX lock on the file {@code lock}, and by its line, the process' id and start.
 */
final class SpoolLock implements AutoCloseable {
  private static final Set<Path> HELD = new HashSet<>();
  private static final int LINE_MAX = 64;
  // The fields of /proc/PID/stat after the command, which may hold blanks and brackets itself.
  private static final int START_AFTER_COMMAND = 19;

  private final Path dir;
  private final FileChannel channel;

  private SpoolLock(Path dir, FileChannel channel) {
    this.dir = dir;
    this.channel = channel;
  }

  static SpoolLock take(Path folder) {
    try {
      Path dir = folder.toRealPath();
      synchronized (HELD) {
        if (!HELD.add(dir)) {
          throw held("another buffer of this process");
        }
      }
      try {
        return locked(dir);
      } catch (IOException | RuntimeException error) {
        leave(dir);
        throw error;
      }
    } catch (IOException error) {
      throw new SpoolException("the spool's lock cannot be taken", error);
    }
  }

  @Override
  public void close() {
    try {
      // The line goes first: who takes the lock next must not find a process that lives.
      channel.truncate(0);
      channel.close();
    } catch (IOException error) {
      // Closing is what lets the lock go, and has been done as far as it can be.
      System.getLogger("io.tallygate")
          .log(System.Logger.Level.WARNING, "the spool's lock could not be emptied", error);
    } finally {
      leave(dir);
    }
  }

  private static SpoolLock locked(Path dir) throws IOException {
    FileChannel channel =
        FileChannel.open(
            dir.resolve("lock"),
            StandardOpenOption.CREATE,
            StandardOpenOption.READ,
            StandardOpenOption.WRITE);
    try {
      FileLock lock = channel.tryLock();
      if (lock == null || livesElsewhere(line(channel))) {
        throw held("another process");
      }
      ProcessHandle self = ProcessHandle.current();
      String line = self.pid() + " " + startTicks(self.pid()) + "\n";
      channel.truncate(0);
      channel.write(ByteBuffer.wrap(line.getBytes(StandardCharsets.US_ASCII)), 0);
      return new SpoolLock(dir, channel);
    } catch (OverlappingFileLockException overlapping) {
      channel.close();
      throw held("another buffer of this process");
    } catch (IOException | RuntimeException error) {
      channel.close();
      throw error;
    }
  }

  private static String line(FileChannel channel) throws IOException {
    ByteBuffer content = ByteBuffer.allocate(LINE_MAX);
    channel.read(content, 0);
    return new String(content.array(), 0, content.position(), StandardCharsets.US_ASCII).trim();
  }

  /** Says whether the line names a process that still lives, and is not this one. */
  private static boolean livesElsewhere(String line) {
    String[] parts = line.split(" ");
    if (parts.length != 2) {
      return false;
    }
    try {
      long pid = Long.parseLong(parts[0]);
      long ticks = Long.parseLong(parts[1]);
      return pid != ProcessHandle.current().pid()
          && ProcessHandle.of(pid).map(ProcessHandle::isAlive).orElse(false)
          && startTicks(pid) == ticks;
    } catch (NumberFormatException notOurs) {
      return false;
    }
  }

  private static long startTicks(long pid) {
    try {
      String stat = Files.readString(Path.of("/proc/" + pid + "/stat"));
      String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
      return Long.parseLong(fields[START_AFTER_COMMAND]);
    } catch (IOException noSuchProcess) {
      return 0;
    }
  }

  private static void leave(Path dir) {
    synchronized (HELD) {
      HELD.remove(dir);
    }
  }

  private static SpoolException held(String by) {
    return new SpoolException(by + " uses the spool's directory");
  }
}
