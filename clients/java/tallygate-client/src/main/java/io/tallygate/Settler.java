package io.tallygate;

import io.tallygate.v1.BatchRecordUsageResponse;
import io.tallygate.v1.CommitRequest;
import io.tallygate.v1.RecordUsageRequest;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * Settles reservations, so that what was used is recorded once, whatever fails.
 *
 * <p>A commit without an answer goes to the buffer. A reservation that has expired meanwhile is
 * recorded by RecordUsage, under the ids that its commit would have given to the events.
 */
final class Settler {
  private static final Logger LOG = System.getLogger("io.tallygate");

  private final Calls calls;
  private final Duration timeout;
  private final Optional<UsageBuffer> buffer;
  private final ScheduledExecutorService timer;

  Settler(
      Calls calls,
      Duration timeout,
      Optional<UsageBuffer> buffer,
      ScheduledExecutorService timer) {
    this.calls = calls;
    this.timeout = timeout;
    this.buffer = buffer;
    this.timer = timer;
  }

  Future<?> every(Duration pause, Runnable what) {
    long nanos = Math.max(1, pause.toNanos());
    return timer.scheduleAtFixedRate(what, nanos, nanos, TimeUnit.NANOSECONDS);
  }

  /** Returns what was used, per item; empty where nothing was said: then it is what was held. */
  List<Long> amounts(Charge charge, List<Optional<Long>> said) {
    if (said.stream().allMatch(Optional::isEmpty)) {
      return List.of();
    }
    List<Long> amounts = new ArrayList<>();
    for (int index = 0; index < said.size(); index++) {
      amounts.add(said.get(index).orElse(charge.items().get(index).amount()));
    }
    return List.copyOf(amounts);
  }

  Settlement commit(Reservation held, List<Long> amounts, String operationId) {
    if (held.decision().local()) {
      return local(held, amounts);
    }
    Commit commit = new Commit(held, amounts, operationId);
    Settlement settled = calls.run(commit.op(), timeout);
    if (!commit.unrecorded(settled)) {
      return settled;
    }
    return commit.recorded(calls.run(commit.instead(), timeout));
  }

  CompletableFuture<Settlement> commitAsync(
      Reservation held, List<Long> amounts, String operationId) {
    if (held.decision().local()) {
      return CompletableFuture.completedFuture(local(held, amounts));
    }
    Commit commit = new Commit(held, amounts, operationId);
    return calls
        .start(commit.op(), timeout)
        .thenCompose(
            settled ->
                commit.unrecorded(settled)
                    ? calls.start(commit.instead(), timeout).thenApply(commit::recorded)
                    : CompletableFuture.completedFuture(settled));
  }

  Released release(Reservation held) {
    return held.decision().local() ? localRelease(held) : calls.run(releasing(held), timeout);
  }

  CompletableFuture<Released> releaseAsync(Reservation held) {
    return held.decision().local()
        ? CompletableFuture.completedFuture(localRelease(held))
        : calls.start(releasing(held), timeout);
  }

  Extended extend(Reservation held, Duration ttl) {
    if (held.decision().local()) {
      return new Extended(Outcome.EXTENDED, Optional.empty());
    }
    return calls.run(
        Operations.extend(held.charge().tenantId(), held.reservationId(), ttl), timeout);
  }

  CompletableFuture<Extended> extendAsync(Reservation held, Duration ttl) {
    return calls.start(
        Operations.extend(held.charge().tenantId(), held.reservationId(), ttl), timeout);
  }

  void unreleased(Reservation held, TallygateException error) {
    LOG.log(
        Level.WARNING,
        "reservation {0} could not be given back, and ends by itself: {1}",
        held.reservationId(),
        error.getMessage());
  }

  /** Says whether a reservation had gone before its commit came, so that nothing is recorded. */
  static boolean lost(Outcome outcome) {
    return outcome == Outcome.EXPIRED || outcome == Outcome.ALREADY_RELEASED;
  }

  /** Says whether an error tells that there is no such reservation any more. */
  static boolean forgotten(TallygateException error) {
    return error instanceof NotFoundException && error.reason().equals("RESERVATION_NOT_FOUND");
  }

  private Settlement local(Reservation held, List<Long> amounts) {
    String named = Operations.settling(held.decision().operationId(), 'c');
    List<RecordUsageRequest> events = events(held, amounts, named);
    if (buffer.isEmpty()) {
      return Settlement.of(Outcome.COMMITTED, List.of(), named);
    }
    events.forEach(buffer.get()::add);
    return Settlement.of(Outcome.BUFFERED, ids(events), named);
  }

  private static Released localRelease(Reservation held) {
    return new Released(Outcome.RELEASED, false, held.decision().operationId());
  }

  private static Op<?, ?, Released> releasing(Reservation held) {
    return Operations.release(held.charge().tenantId(), held.reservationId(), "");
  }

  /** Returns the events that a commit records: of what was held, then of what goes beyond. */
  private static List<RecordUsageRequest> events(
      Reservation held, List<Long> amounts, String operationId) {
    List<Item> items = held.charge().items();
    Instant now = Instant.now();
    List<RecordUsageRequest> covered = new ArrayList<>();
    List<RecordUsageRequest> beyond = new ArrayList<>();
    for (int index = 0; index < items.size(); index++) {
      Item item = items.get(index);
      long used = amounts.isEmpty() ? item.amount() : amounts.get(index);
      long part = Math.min(used, item.amount());
      if (part > 0) {
        covered.add(event(held, item, part, operationId + ":" + index, now));
      }
      if (used > part && held.excess() == Excess.RECORD) {
        String eventId = operationId + ":" + (items.size() + index);
        beyond.add(event(held, item, used - part, eventId, now));
      }
    }
    covered.addAll(beyond);
    return List.copyOf(covered);
  }

  private static RecordUsageRequest event(
      Reservation held, Item item, long amount, String eventId, Instant now) {
    return Convert.usage(
        Usage.builder(held.charge().tenantId(), item.meter(), amount)
            .eventId(eventId)
            .operationId(eventId)
            .eventTime(now)
            .dimensions(item.dimensions())
            .context(held.charge().context())
            .build());
  }

  private static List<String> ids(List<RecordUsageRequest> events) {
    return events.stream().map(RecordUsageRequest::getEventId).toList();
  }

  /** One commit on its way, with what to record where its reservation has gone. */
  private final class Commit {
    private final CommitRequest request;
    private final List<RecordUsageRequest> events;

    Commit(Reservation held, List<Long> amounts, String operationId) {
      request =
          Operations.commitRequest(
              held.charge().tenantId(),
              held.reservationId(),
              amounts,
              held.excess(),
              operationId);
      events = events(held, amounts, request.getOperationId());
    }

    Op<?, ?, Settlement> op() {
      return Operations.commit(request).orElse(this::unanswered);
    }

    Op<?, ?, BatchRecordUsageResponse> instead() {
      return Operations.record(events)
          .orElse(
              error -> {
                if (!Errors.absent(error) || buffer.isEmpty()) {
                  throw error;
                }
                events.forEach(buffer.get()::add);
                return BatchRecordUsageResponse.getDefaultInstance();
              });
    }

    boolean unrecorded(Settlement settled) {
      return lost(settled.outcome()) && !events.isEmpty();
    }

    Settlement recorded(BatchRecordUsageResponse reply) {
      for (int index = 0; index < reply.getResultsCount(); index++) {
        if (reply.getResults(index).hasError()) {
          TallygateException error =
              Errors.of(reply.getResults(index).getError(), request.getOperationId());
          if (!Errors.again(error) || buffer.isEmpty()) {
            throw error;
          }
          buffer.get().add(events.get(index));
        }
      }
      return Settlement.of(Outcome.EXPIRED, ids(events), request.getOperationId());
    }

    private Settlement unanswered(TallygateException error) {
      if (forgotten(error)) {
        return Settlement.of(Outcome.EXPIRED, List.of(), request.getOperationId());
      }
      if (!Errors.absent(error) || buffer.isEmpty()) {
        throw error;
      }
      buffer.get().add(request, events);
      return Settlement.of(Outcome.BUFFERED, ids(events), request.getOperationId());
    }
  }
}
