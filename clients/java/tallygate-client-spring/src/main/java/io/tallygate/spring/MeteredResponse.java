package io.tallygate.spring;

import jakarta.servlet.ServletOutputStream;
import jakarta.servlet.WriteListener;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.charset.Charset;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/** A response whose bytes are counted as they are passed on, and whose limit fields stay. */
final class MeteredResponse extends HttpServletResponseWrapper {
  private final Map<String, String> fields = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
  private final Optional<String> meter;
  private volatile long bytes;
  private volatile boolean abandoned;
  private ServletOutputStream stream;
  private PrintWriter writer;

  MeteredResponse(
      HttpServletResponse response, Map<String, String> fields, Optional<String> meter) {
    super(response);
    this.fields.putAll(fields);
    this.meter = meter;
  }

  /** The meter that its bytes are charged to. */
  Optional<String> meter() {
    return meter;
  }

  long bytes() {
    return bytes;
  }

  /** Whether the client has left before the end. */
  boolean abandoned() {
    // A writer keeps to itself what it has met. To ask it flushes, so only what has begun to go.
    return abandoned || (writer != null && isCommitted() && writer.checkError());
  }

  @Override
  public ServletOutputStream getOutputStream() throws IOException {
    if (stream == null) {
      stream = new Counting(super.getOutputStream());
    }
    return stream;
  }

  @Override
  public PrintWriter getWriter() throws IOException {
    if (writer == null) {
      // The container's own writer: what it buffers, it also ends.
      PrintWriter to = super.getWriter();
      writer = new PrintWriter(new CountingText(to, Charset.forName(getCharacterEncoding())));
    }
    return writer;
  }

  @Override
  public void flushBuffer() throws IOException {
    if (writer != null) {
      writer.flush();
    }
    try {
      super.flushBuffer();
    } catch (IOException error) {
      abandoned = true;
      throw error;
    }
  }

  @Override
  public void resetBuffer() {
    super.resetBuffer();
    bytes = 0;
  }

  @Override
  public void reset() {
    super.reset();
    bytes = 0;
    stream = null;
    writer = null;
    fields.forEach(super::setHeader);
  }

  @Override
  public void setHeader(String name, String value) {
    if (!fields.containsKey(name)) {
      super.setHeader(name, value);
    }
  }

  @Override
  public void addHeader(String name, String value) {
    if (!fields.containsKey(name)) {
      super.addHeader(name, value);
    }
  }

  /** One thread writes at a time: it is seen by the one that settles. */
  private void count(long length) {
    bytes += length;
  }

  /** Counts what the container's writer makes of text. */
  private final class CountingText extends Writer {
    private final PrintWriter to;
    private final Charset charset;
    private String half = "";

    CountingText(PrintWriter to, Charset charset) {
      this.to = to;
      this.charset = charset;
    }

    @Override
    public void write(char[] text, int from, int length) throws IOException {
      to.write(text, from, length);
      String whole = half + new String(text, from, length);
      half = "";
      int last = whole.length() - 1;
      if (last >= 0 && Character.isHighSurrogate(whole.charAt(last))) {
        // The other half of the character comes with what is written next.
        half = whole.substring(last);
        whole = whole.substring(0, last);
      }
      count(whole.getBytes(charset).length);
    }

    @Override
    public void flush() throws IOException {
      if (to.checkError()) {
        throw new IOException("the client has left");
      }
    }

    @Override
    public void close() {
      to.close();
    }
  }

  /** Counts what the container has taken. */
  private final class Counting extends ServletOutputStream {
    private final ServletOutputStream to;

    Counting(ServletOutputStream to) {
      this.to = to;
    }

    @Override
    public void write(int value) throws IOException {
      try {
        to.write(value);
      } catch (IOException error) {
        abandoned = true;
        throw error;
      }
      count(1);
    }

    @Override
    public void write(byte[] content, int from, int length) throws IOException {
      try {
        to.write(content, from, length);
      } catch (IOException error) {
        abandoned = true;
        throw error;
      }
      count(length);
    }

    @Override
    public void flush() throws IOException {
      try {
        to.flush();
      } catch (IOException error) {
        abandoned = true;
        throw error;
      }
    }

    @Override
    public void close() throws IOException {
      to.close();
    }

    @Override
    public boolean isReady() {
      return to.isReady();
    }

    @Override
    public void setWriteListener(WriteListener listener) {
      to.setWriteListener(listener);
    }
  }
}
