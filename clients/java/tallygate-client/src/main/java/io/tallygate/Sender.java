package io.tallygate;

import io.tallygate.v1.BatchRecordUsageResponse;
import io.tallygate.v1.BatchRecordUsageResult;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Sends the buffer's entries, and says which of them have to be sent again, and when. */
final class Sender {
  /** Below what the service takes in one message. */
  static final long BYTES_MAX = 3L << 20;

  private static final long PAUSE_FIRST_NANOS = TimeUnit.MILLISECONDS.toNanos(100);
  private static final long PAUSE_MAX_NANOS = TimeUnit.SECONDS.toNanos(5);

  private final Calls calls;
  private final Duration timeout;
  private final Counters counters;
  private int failures;
  private volatile boolean pushedBack;

  Sender(Calls calls, Duration timeout, Counters counters) {
    this.calls = calls;
    this.timeout = timeout;
    this.counters = counters;
  }

  /**
   * What became of entries.
   *
   * @param gone sent, or refused for good
   * @param kept to be sent again, after `pauseNanos`
   * @param instead events to record in the place of a commit
   */
  record Sent(
      List<Entry> gone, List<Entry> kept, List<RecordUsageRequest> instead, long pauseNanos) {
    static Sent nothing(List<Entry> batch, long pauseNanos) {
      return new Sent(List.of(), batch, List.of(), pauseNanos);
    }
  }

  /** Whether the service itself has said when it wants to be asked again. */
  boolean pushedBack() {
    return pushedBack;
  }

  Sent send(List<Entry> batch) {
    Round round = new Round();
    if (batch.get(0).commit.isPresent()) {
      round.commit(batch.get(0), batch.get(0).commit.get());
    } else {
      round.events(batch);
    }
    return round.end();
  }

  /** One request, or several where one is refused as a whole. */
  private final class Round {
    private final List<Entry> gone = new ArrayList<>();
    private final List<Entry> kept = new ArrayList<>();
    private final List<RecordUsageRequest> instead = new ArrayList<>();
    private Duration asked = Duration.ZERO;

    void events(List<Entry> batch) {
      List<RecordUsageRequest> requests =
          batch.stream().map(entry -> entry.events.get(0)).toList();
      BatchRecordUsageResponse reply;
      try {
        reply = calls.run(Operations.record(requests), timeout);
      } catch (TallygateException error) {
        refused(batch, error);
        return;
      }
      for (int index = 0; index < batch.size(); index++) {
        if (index < reply.getResultsCount()) {
          result(batch.get(index), reply.getResults(index));
        } else {
          kept.add(batch.get(index));
        }
      }
    }

    void commit(Entry entry, CommitRequest request) {
      try {
        Settlement settled = calls.run(Operations.commit(request), timeout);
        if (Settler.lost(settled.outcome())) {
          instead.addAll(entry.events);
        }
        sent(entry, settled.replayed());
      } catch (TallygateException error) {
        if (Settler.forgotten(error)) {
          instead.addAll(entry.events);
          gone.add(entry);
        } else if (keep(error)) {
          again(entry, error);
        } else {
          reject(entry, error);
        }
      }
    }

    Sent end() {
      if (kept.isEmpty()) {
        failures = 0;
        pushedBack = false;
        return new Sent(gone, kept, instead, 0);
      }
      long most = Math.min(PAUSE_FIRST_NANOS << Math.min(failures, 6), PAUSE_MAX_NANOS);
      failures++;
      Duration pushback = calls.pushedBack();
      if (pushback.compareTo(asked) > 0) {
        // It came with an attempt that the deadline ended, and not with the error.
        asked = pushback;
      }
      pushedBack = !asked.isZero();
      long pause = ThreadLocalRandom.current().nextLong(most) + 1;
      return new Sent(gone, kept, instead, Math.max(pause, asked.toNanos()));
    }

    private void refused(List<Entry> batch, TallygateException error) {
      // What a caller may not do for a tenant is told item by item: a list that is refused whole
      // is refused for its caller, and a wrong certificate must not empty a buffer.
      if (keep(error) || error instanceof PermissionDeniedException) {
        batch.forEach(entry -> again(entry, error));
      } else if (batch.size() == 1) {
        reject(batch.get(0), error);
      } else {
        // One of them may be to blame, or all of them together: halves tell.
        events(batch.subList(0, batch.size() / 2));
        events(batch.subList(batch.size() / 2, batch.size()));
      }
    }

    private void result(Entry entry, BatchRecordUsageResult result) {
      if (!result.hasError()) {
        sent(entry, result.getResponse().getReplayed());
        return;
      }
      TallygateException error =
          Errors.of(result.getError(), entry.events.get(0).getEventId());
      if (Errors.again(error)) {
        again(entry, error);
      } else {
        reject(entry, error);
      }
    }

    private void sent(Entry entry, boolean replayed) {
      counters.sent.increment();
      if (replayed) {
        counters.replayed.increment();
      }
      gone.add(entry);
    }

    private void again(Entry entry, TallygateException error) {
      kept.add(entry);
      error.retryAfter().filter(wait -> wait.compareTo(asked) > 0).ifPresent(this::wait);
    }

    private void wait(Duration wait) {
      asked = wait;
    }

    private void reject(Entry entry, TallygateException error) {
      gone.add(entry);
      counters.rejected.increment();
      entry.events.forEach(event -> counters.unsent(Convert.usage(event), error));
    }
  }

  /**
   * Says whether the whole request is to be sent again: no answer came, it was interrupted, or who
   * calls is not known. An INTERNAL or UNKNOWN without a reason is none of the service's, but of
   * what is between.
   */
  private static boolean keep(TallygateException error) {
    return Errors.again(error)
        || error instanceof UnauthenticatedException
        || (error instanceof InternalException && error.reason().isEmpty())
        || error instanceof CallCancelledException
        || error instanceof ClosedException;
  }
}
