package io.tallygate;

import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Records usage without waiting for the service.
 *
 * <p>What it has taken is sent in the background until the service has it or refuses it for good,
 * which is told to {@link Hooks#onRejected}. It is bounded, and drops nothing silently. With a
 * spool, what it has taken survives the process.
 */
public final class UsageBuffer {
  private static final Logger LOG = System.getLogger("io.tallygate");
  private static final long PAUSE_AFTER_FAULT_NANOS = TimeUnit.SECONDS.toNanos(1);

  private final BufferOptions options;
  private final Counters counters;
  private final Sender sender;
  private final Optional<Spool> spool;
  private final Future<?> syncs;
  private final Thread thread;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition work = lock.newCondition();
  private final Condition progress = lock.newCondition();
  private final ArrayDeque<Entry> queue = new ArrayDeque<>();
  private int inFlight;
  private long firstInFlight;
  private long nextNumber;
  private long flushUpTo = -1;
  private long notBefore = System.nanoTime();
  private boolean closed;
  private boolean stopped;

  UsageBuffer(
      BufferOptions options, Counters counters, Sender sender, ScheduledExecutorService timer) {
    this.options = options;
    this.counters = counters;
    this.sender = sender;
    List<Entry> left = new ArrayList<>();
    this.spool = options.spoolDir().map(dir -> Spool.open(dir, options, counters, left));
    left.forEach(this::enqueue);
    this.syncs = spool.isPresent() ? syncing(timer) : CompletableFuture.completedFuture(null);
    this.thread = new Thread(this::run, "tallygate-buffer");
    thread.setDaemon(true);
    thread.start();
  }

  /**
   * Takes usage in, and returns the id of its event at once.
   *
   * @throws BufferFullException if there is no room: it was not taken
   * @throws ClosedException if the client is closed
   * @throws SpoolException if the spool cannot be written: it was not taken
   */
  public String record(Usage usage) {
    String operationId = usage.operationId();
    String eventId = usage.eventId();
    if (eventId.isEmpty()) {
      eventId = operationId.isEmpty() ? Operations.fresh() : operationId + ":0";
    }
    RecordUsageRequest event =
        Convert.usage(
            new Usage(
                usage.tenantId(),
                usage.meter(),
                usage.amount(),
                eventId,
                operationId,
                Optional.of(usage.eventTime().orElseGet(Instant::now)),
                usage.dimensions(),
                usage.context(),
                usage.metadata(),
                usage.minDurability()));
    add(event);
    return eventId;
  }

  /** Sends what was taken until now; says whether all of it was sent in time. */
  public boolean flush(Duration timeout) {
    long until = System.nanoTime() + timeout.toNanos();
    lock.lock();
    try {
      long last = nextNumber - 1;
      flushUpTo = last;
      if (!sender.pushedBack()) {
        notBefore = System.nanoTime();
      }
      work.signalAll();
      while (oldest() <= last) {
        long left = until - System.nanoTime();
        if (left <= 0 || stopped) {
          return false;
        }
        progress.awaitNanos(left);
      }
      return true;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    } finally {
      lock.unlock();
    }
  }

  /** How many entries wait. */
  public int pending() {
    lock.lock();
    try {
      return queue.size() + inFlight;
    } finally {
      lock.unlock();
    }
  }

  void add(RecordUsageRequest event) {
    add(Entry.of(event));
  }

  void add(CommitRequest commit, List<RecordUsageRequest> events) {
    add(Entry.of(commit, events));
  }

  long spoolBytes() {
    lock.lock();
    try {
      return spool.map(Spool::bytes).orElse(0L);
    } finally {
      lock.unlock();
    }
  }

  /** Takes in nothing more, and sends what is left; says whether all was sent in time. */
  boolean close(Duration timeout) {
    lock.lock();
    try {
      closed = true;
    } finally {
      lock.unlock();
    }
    boolean flushed = flush(timeout);
    stop();
    lock.lock();
    try {
      syncs.cancel(false);
      spool.ifPresent(Spool::close);
      if (!queue.isEmpty()) {
        report();
      }
    } finally {
      lock.unlock();
    }
    return flushed;
  }

  private void add(Entry entry) {
    lock.lock();
    try {
      if (closed) {
        throw new ClosedException("the client is closed");
      }
      if (queue.size() + inFlight >= options.maxEvents()) {
        throw new BufferFullException("the buffer is full: " + options.maxEvents() + " entries");
      }
      spool.ifPresent(kept -> kept.keep(entry));
      enqueue(entry);
      counters.recorded.increment();
      // The sender waits for the first, and for as many as it sends at once.
      if (queue.size() == 1 || queue.size() == options.batch()) {
        work.signalAll();
      }
    } catch (BufferFullException full) {
      counters.refusedFull.increment();
      throw full;
    } finally {
      lock.unlock();
    }
  }

  private void enqueue(Entry entry) {
    entry.number = nextNumber;
    nextNumber++;
    queue.addLast(entry);
  }

  private Future<?> syncing(ScheduledExecutorService timer) {
    long nanos = options.spoolSync().toNanos();
    if (nanos == 0) {
      return CompletableFuture.completedFuture(null);
    }
    return timer.scheduleWithFixedDelay(
        () -> {
          try {
            spool.orElseThrow().sync();
          } catch (IOException error) {
            LOG.log(Level.WARNING, "the spool could not be synced", error);
          }
        },
        nanos,
        nanos,
        TimeUnit.NANOSECONDS);
  }

  private long oldest() {
    if (inFlight > 0) {
      return firstInFlight;
    }
    return queue.isEmpty() ? Long.MAX_VALUE : queue.peekFirst().number;
  }

  private void run() {
    while (true) {
      List<Entry> batch;
      try {
        batch = next();
      } catch (InterruptedException interrupted) {
        return;
      }
      Sender.Sent sent;
      try {
        sent = sender.send(batch);
      } catch (RuntimeException fault) {
        LOG.log(Level.ERROR, "the buffer could not send", fault);
        sent = Sender.Sent.nothing(batch, PAUSE_AFTER_FAULT_NANOS);
      }
      take(sent);
    }
  }

  /** Waits for entries, and until they are due. */
  private List<Entry> next() throws InterruptedException {
    lock.lockInterruptibly();
    try {
      while (true) {
        if (stopped) {
          throw new InterruptedException("stopped");
        }
        if (queue.isEmpty()) {
          work.await();
          continue;
        }
        long wait = due() - System.nanoTime();
        if (wait <= 0) {
          return taken();
        }
        work.awaitNanos(wait);
      }
    } finally {
      lock.unlock();
    }
  }

  private long due() {
    Entry first = queue.peekFirst();
    if (queue.size() >= options.batch() || first.number <= flushUpTo) {
      return notBefore;
    }
    long gathered = first.since + options.flushEvery().toNanos();
    return gathered - notBefore > 0 ? gathered : notBefore;
  }

  private List<Entry> taken() {
    List<Entry> batch = new ArrayList<>();
    long bytes = 0;
    while (!queue.isEmpty() && batch.size() < options.batch()) {
      Entry entry = queue.peekFirst();
      bytes += entry.size;
      boolean alone = entry.commit.isPresent();
      if (!batch.isEmpty() && (alone || bytes > Sender.BYTES_MAX)) {
        break;
      }
      batch.add(queue.pollFirst());
      if (alone) {
        break;
      }
    }
    inFlight = batch.size();
    firstInFlight = batch.get(0).number;
    return batch;
  }

  private void take(Sender.Sent sent) {
    int pending;
    lock.lock();
    try {
      for (RecordUsageRequest event : sent.instead()) {
        Entry entry = Entry.of(event);
        spool.ifPresent(kept -> kept.keep(entry));
        enqueue(entry);
      }
      for (int index = sent.kept().size() - 1; index >= 0; index--) {
        queue.addFirst(sent.kept().get(index));
      }
      spool.ifPresent(kept -> sent.gone().forEach(kept::forget));
      inFlight = 0;
      if (sent.pauseNanos() > 0) {
        notBefore = System.nanoTime() + sent.pauseNanos();
        counters.retries.increment();
      }
      pending = queue.size();
      progress.signalAll();
    } finally {
      lock.unlock();
    }
    counters.buffered(pending);
  }

  private void stop() {
    lock.lock();
    try {
      stopped = true;
      work.signalAll();
      progress.signalAll();
    } finally {
      lock.unlock();
    }
    thread.interrupt();
    try {
      thread.join();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Tells of what was not sent: nothing is dropped silently. */
  private void report() {
    LOG.log(
        Level.WARNING,
        spool.isPresent()
            ? "{0} entries were not sent; they are in the spool, and are sent by the next start"
            : "{0} entries were not sent and are lost, as there is no spool",
        queue.size());
    if (spool.isEmpty()) {
      ClosedException error = new ClosedException("the client was closed before it was sent");
      for (Entry entry : queue) {
        entry.events.forEach(event -> counters.unsent(Convert.usage(event), error));
      }
    }
  }
}
