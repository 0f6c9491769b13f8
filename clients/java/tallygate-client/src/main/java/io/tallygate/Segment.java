package io.tallygate;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * One file of the spool. Written by {@link RandomAccessFile}, as the channels of {@code java.nio}
 * are closed under everybody by a thread that is interrupted.
 */
final class Segment {
  final Path path;
  final long since = System.nanoTime();
  long bytes;
  int unresolved;
  private RandomAccessFile file;

  private Segment(Path path, RandomAccessFile file, long bytes) {
    this.path = path;
    this.file = file;
    this.bytes = bytes;
  }

  /** Returns one that a process before this one has written, which is only read. */
  static Segment found(Path path, long bytes) {
    return new Segment(path, null, bytes);
  }

  static Segment create(Path path) throws IOException {
    return new Segment(path, new RandomAccessFile(path.toFile(), "rw"), 0);
  }

  void write(byte[] record) throws IOException {
    try {
      file.seek(bytes);
      file.write(record);
    } catch (IOException error) {
      file.setLength(bytes);
      throw error;
    }
    bytes += record.length;
  }

  /** Syncs what was written. One that was closed meanwhile has been synced by that. */
  void sync() throws IOException {
    RandomAccessFile open = file;
    if (open != null && open.getFD().valid()) {
      open.getFD().sync();
    }
  }

  /** Writes no more to it. */
  void close() throws IOException {
    if (file != null) {
      sync();
      file.close();
      file = null;
    }
  }

  void delete() throws IOException {
    if (file != null) {
      file.close();
      file = null;
    }
    Files.deleteIfExists(path);
  }
}
