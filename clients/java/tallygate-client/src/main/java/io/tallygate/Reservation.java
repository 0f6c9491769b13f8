package io.tallygate;

import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.function.Function;

/**
 * Units held for work whose cost is not known yet.
 *
 * <pre>{@code
 * try (Reservation held = client.reserve(Charge.of("acme", "tokens", 4_000))) {
 *   held.actual(model.answer().tokens());
 *   held.commit();
 * }
 * }</pre>
 *
 * <p>What was not committed is given back by {@link #close}. A commit whose call has failed may
 * have been taken: it is not given back, and may be tried again. Safe for use by several threads.
 */
public final class Reservation implements AutoCloseable {
  private static final int HEARTBEATS_PER_TTL = 3;

  private enum State {
    OPEN,
    COMMITTING,
    DONE
  }

  private final Settler settler;
  private final Charge charge;
  private final Decision decision;
  private final String reservationId;
  private final Optional<Instant> expiresAt;
  private final ReserveOptions options;
  private final Optional<Long>[] amounts;
  private State state = State.OPEN;
  private Optional<Settlement> settlement = Optional.empty();
  private Future<?> heartbeat = CompletableFuture.completedFuture(null);

  @SuppressWarnings({"unchecked", "rawtypes"})
  Reservation(
      Settler settler,
      Charge charge,
      Decision decision,
      String reservationId,
      Optional<Instant> expiresAt,
      ReserveOptions options) {
    this.settler = settler;
    this.charge = charge;
    this.decision = decision;
    this.reservationId = reservationId;
    this.expiresAt = expiresAt;
    this.options = options;
    this.amounts = new Optional[charge.items().size()];
    for (int index = 0; index < amounts.length; index++) {
      amounts[index] = Optional.empty();
    }
    if (!decision.allowed()) {
      state = State.DONE;
    } else if (options.keepAlive() && !decision.local()) {
      Duration ttl = options.ttl().orElse(ReserveOptions.DEFAULT_TTL);
      heartbeat = settler.every(ttl.dividedBy(HEARTBEATS_PER_TTL), () -> beat(ttl));
    }
  }

  /** What was decided; of a reservation that was refused, nothing is held. */
  public Decision decision() {
    return decision;
  }

  /** Whether the units are held. */
  public boolean allowed() {
    return decision.allowed();
  }

  /** Names the reservation; empty when refused, or when the client itself has granted. */
  public String reservationId() {
    return reservationId;
  }

  /** When it ends unless it is kept alive, on the service's clock. */
  public Optional<Instant> expiresAt() {
    return expiresAt;
  }

  /** How it was committed; empty until then. */
  public synchronized Optional<Settlement> settlement() {
    return settlement;
  }

  /** Says what was used of the only item, or of each item in its order; 0 for nothing. */
  public synchronized void actual(long... used) {
    if (used.length != amounts.length) {
      throw new IllegalArgumentException(
          used.length + " amounts were given for " + amounts.length + " items");
    }
    for (int index = 0; index < used.length; index++) {
      set(index, used[index]);
    }
  }

  /** Says what was used of the items of one meter; the last call counts. */
  public synchronized void actual(String meter, long used) {
    set(place(meter), used);
  }

  /** Says that so much more was used of one meter; the first such call begins at 0. */
  public synchronized void add(String meter, long more) {
    int index = place(meter);
    set(index, Math.addExact(amounts[index].orElse(0L), more));
  }

  /**
   * Records what was used: what was said, else what was reserved.
   *
   * @throws TallygateException why it could not; it may be called again then
   */
  public Settlement commit() {
    List<Long> used = committing();
    return committed(settler.commit(this, used, ""));
  }

  /** As {@link #commit()}, under a name that the caller gives. */
  public Settlement commit(String operationId) {
    List<Long> used = committing();
    return committed(settler.commit(this, used, operationId));
  }

  /** As {@link #commit()}, without waiting. */
  public CompletableFuture<Settlement> commitAsync() {
    List<Long> used = committing();
    return settler.commitAsync(this, used, "").thenApply(this::committed);
  }

  /** Gives all units back: nothing was used. */
  public Released release() {
    releasing();
    return settler.release(this);
  }

  /** As {@link #release()}, without waiting. */
  public CompletableFuture<Released> releaseAsync() {
    releasing();
    return settler.releaseAsync(this);
  }

  /** Moves the end to so long from now. */
  public Extended extend(Duration ttl) {
    return settler.extend(this, ttl);
  }

  /**
   * Gives the units back, unless they were committed or released. When that call fails they come
   * back by themselves once the reservation has expired: nothing is thrown, the error is counted.
   */
  @Override
  public void close() {
    if (!unsettled()) {
      return;
    }
    try {
      release();
    } catch (TallygateException error) {
      settler.unreleased(this, error);
    }
  }

  /** Commits what work under it has left open. */
  void commitUnlessSettled() {
    if (unsettled()) {
      commit();
    }
  }

  /** Does work that nobody waits for, and commits when it ends or gives back when it fails. */
  <T> CompletableFuture<T> settledBy(
      Function<Reservation, ? extends CompletableFuture<T>> work) {
    CompletableFuture<T> working;
    try {
      working = work.apply(this);
    } catch (RuntimeException error) {
      working = CompletableFuture.failedFuture(error);
    }
    return working
        .handle((result, error) -> error == null ? ended(result) : this.<T>failed(error))
        .thenCompose(Function.identity());
  }

  private <T> CompletableFuture<T> ended(T result) {
    return unsettled()
        ? commitAsync().thenApply(settled -> result)
        : CompletableFuture.completedFuture(result);
  }

  private <T> CompletableFuture<T> failed(Throwable error) {
    if (!unsettled()) {
      return CompletableFuture.failedFuture(error);
    }
    return releaseAsync()
        .handle(
            (released, unreleased) -> {
              if (unreleased instanceof TallygateException known) {
                settler.unreleased(this, known);
              }
              return released;
            })
        .thenCompose(either -> CompletableFuture.failedFuture(error));
  }

  /** Whether it is held, and neither committed nor released: nothing was tried yet. */
  public synchronized boolean unsettled() {
    return state == State.OPEN;
  }

  Charge charge() {
    return charge;
  }

  Excess excess() {
    return options.excess();
  }

  private void set(int index, long used) {
    if (used < 0) {
      throw new IllegalArgumentException("an amount is not negative: " + used);
    }
    if (state == State.DONE) {
      throw new IllegalStateException("the reservation is settled");
    }
    amounts[index] = Optional.of(used);
  }

  private int place(String meter) {
    for (int index = 0; index < amounts.length; index++) {
      if (charge.items().get(index).meter().equals(meter)) {
        return index;
      }
    }
    throw new IllegalArgumentException("nothing is reserved of the meter " + meter);
  }

  private synchronized List<Long> committing() {
    if (state == State.DONE) {
      throw new IllegalStateException("the reservation is settled");
    }
    state = State.COMMITTING;
    heartbeat.cancel(false);
    return settler.amounts(charge, List.of(amounts));
  }

  private synchronized Settlement committed(Settlement settlement) {
    state = State.DONE;
    this.settlement = Optional.of(settlement);
    return settlement;
  }

  private synchronized void releasing() {
    if (state != State.OPEN) {
      throw new IllegalStateException("the reservation is settled");
    }
    state = State.DONE;
    heartbeat.cancel(false);
  }

  private void beat(Duration ttl) {
    settler
        .extendAsync(this, ttl)
        .whenComplete(
            (extended, error) -> {
              // An error may pass: the next beat tries again.
              if (extended != null && extended.outcome() != Outcome.EXTENDED) {
                heartbeat.cancel(false);
              }
            });
  }
}
