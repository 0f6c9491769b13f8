package io.tallygate;

import io.grpc.Status;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;

/** Counts, and tells the app's hooks, whose exceptions end here. */
final class Counters {
  private static final Logger LOG = System.getLogger("io.tallygate");

  final LongAdder calls = new LongAdder();
  final LongAdder errors = new LongAdder();
  final LongAdder recorded = new LongAdder();
  final LongAdder sent = new LongAdder();
  final LongAdder replayed = new LongAdder();
  final LongAdder rejected = new LongAdder();
  final LongAdder refusedFull = new LongAdder();
  final LongAdder retries = new LongAdder();
  final LongAdder spoolTorn = new LongAdder();

  private final Map<String, LongAdder> localOpen = new ConcurrentHashMap<>();
  private final Map<String, LongAdder> localClosed = new ConcurrentHashMap<>();
  private final Hooks hooks;

  Counters(Hooks hooks) {
    this.hooks = hooks;
  }

  void called(String method, Status.Code code, long nanos) {
    calls.increment();
    if (code != Status.Code.OK) {
      errors.increment();
    }
    if (hooks != Hooks.NONE) {
      guarded(() -> hooks.onCall(method, code, Duration.ofNanos(nanos)));
    }
  }

  void local(String method, OnAbsent policy) {
    Map<String, LongAdder> counted = policy == OnAbsent.OPEN ? localOpen : localClosed;
    counted.computeIfAbsent(method, key -> new LongAdder()).increment();
    guarded(() -> hooks.onLocal(method, policy));
  }

  void rejected(Usage event, TallygateException error) {
    rejected.increment();
    unsent(event, error);
  }

  void unsent(Usage event, TallygateException error) {
    guarded(() -> hooks.onRejected(event, error));
  }

  void buffered(int pending) {
    guarded(() -> hooks.onBuffer(pending));
  }

  Stats stats(long pending, long spoolBytes) {
    Map<String, Long> open = copied(localOpen);
    Map<String, Long> closed = copied(localClosed);
    return new Stats(
        calls.sum(),
        errors.sum(),
        total(open),
        total(closed),
        open,
        closed,
        recorded.sum(),
        sent.sum(),
        replayed.sum(),
        rejected.sum(),
        refusedFull.sum(),
        retries.sum(),
        pending,
        spoolBytes,
        spoolTorn.sum());
  }

  private static Map<String, Long> copied(Map<String, LongAdder> counted) {
    Map<String, Long> copy = new TreeMap<>();
    counted.forEach((method, count) -> copy.put(method, count.sum()));
    return copy;
  }

  private static long total(Map<String, Long> counted) {
    return counted.values().stream().mapToLong(Long::longValue).sum();
  }

  private static void guarded(Runnable hook) {
    try {
      hook.run();
    } catch (RuntimeException error) {
      LOG.log(Level.WARNING, "a hook of the Tallygate client has thrown", error);
    }
  }
}
