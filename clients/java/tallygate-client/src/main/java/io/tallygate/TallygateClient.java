package io.tallygate;

import io.grpc.Channel;
import io.tallygate.v1.ReserveResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/**
 * Asks the Tallygate sidecar before costly work, and tells it after.
 *
 * <pre>{@code
 * try (TallygateClient client = TallygateClient.builder().build()) {
 *   Decision decision = client.checkAndConsume(Charge.of("acme", "api_calls", 1));
 *   if (!decision.allowed()) {
 *     reply(429, decision.retryAfter());
 *   }
 * }
 * }</pre>
 *
 * <p>Make one for the whole app: it holds one connection, and is safe for use by several threads.
 * Every call has a deadline, its retries included, and a name, its operation id, that is the same
 * over them, so that it is charged once. The methods that end in {@code Async} do not wait; to
 * cancel their futures cancels the call. All of them throw, or end with, a
 * {@link TallygateException}.
 */
public final class TallygateClient implements AutoCloseable {
  /** Name and version of this client, as they stand on every event. */
  public static final String SDK = Version.SDK;

  /** How long {@link #close()} waits for the buffer. */
  public static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(5);

  private final Core core;
  private final Duration timeout;
  private final Settler settler;

  TallygateClient(Core core, Duration timeout) {
    this.core = core;
    this.timeout = timeout;
    this.settler = new Settler(core.calls(), timeout, core.buffer(), core.timer());
  }

  /** Returns a builder of a client of the sidecar that the environment names. */
  public static TallygateClientBuilder builder() {
    return new TallygateClientBuilder();
  }

  /** Returns the same client, on the same connection, with another time for each call. */
  public TallygateClient withTimeout(Duration timeout) {
    return new TallygateClient(core, TallygateClientBuilder.positive(timeout));
  }

  /** Charges every item, or none, and records the events. A refusal is a decision. */
  public Decision checkAndConsume(Charge charge) {
    return core.calls().run(core.consume(Operations.named(charge)), timeout);
  }

  /** As {@link #checkAndConsume}, without waiting. */
  public CompletableFuture<Decision> checkAndConsumeAsync(Charge charge) {
    return core.calls().start(core.consume(Operations.named(charge)), timeout);
  }

  /** Decides each charge of a list by itself; a bad one never fails its neighbours. */
  public List<Result<Decision>> batchCheckAndConsume(List<Charge> charges) {
    return core.calls().run(Operations.batch(named(charges)), timeout);
  }

  /** As {@link #batchCheckAndConsume}, without waiting. */
  public CompletableFuture<List<Result<Decision>>> batchCheckAndConsumeAsync(
      List<Charge> charges) {
    return core.calls().start(Operations.batch(named(charges)), timeout);
  }

  /** Says what a charge would be answered now, and charges nothing. */
  public Decision check(Charge charge) {
    return core.calls().run(core.check(Operations.named(charge)), timeout);
  }

  /** As {@link #check}, without waiting. */
  public CompletableFuture<Decision> checkAsync(Charge charge) {
    return core.calls().start(core.check(Operations.named(charge)), timeout);
  }

  /** Reads where a tenant stands; of some meters, or of all where none is named. */
  public Quota getQuota(String tenantId, String... meters) {
    return getQuota(tenantId, List.of(meters), Map.of());
  }

  /** Reads where a tenant stands, of limits per dimension by these. */
  public Quota getQuota(String tenantId, List<String> meters, Map<String, String> dimensions) {
    return core.calls().run(Operations.quota(tenantId, meters, dimensions), timeout);
  }

  /** As {@link #getQuota(String, String...)}, without waiting. */
  public CompletableFuture<Quota> getQuotaAsync(String tenantId, String... meters) {
    return core.calls().start(Operations.quota(tenantId, List.of(meters), Map.of()), timeout);
  }

  /**
   * Holds units for work whose cost is not known yet, and keeps them until the reservation is
   * closed.
   *
   * @throws QuotaExceededException if a limit refuses
   */
  public Reservation reserve(Charge charge) {
    return reserve(charge, ReserveOptions.DEFAULT);
  }

  /**
   * As {@link #reserve(Charge)}, in a way of its own.
   *
   * @throws QuotaExceededException if a limit refuses
   */
  public Reservation reserve(Charge charge, ReserveOptions options) {
    Reservation held = tryReserve(charge, options);
    held.decision().orThrow();
    return held;
  }

  /** As {@link #reserve(Charge, ReserveOptions)}, without waiting. */
  public CompletableFuture<Reservation> reserveAsync(Charge charge, ReserveOptions options) {
    return tryReserveAsync(charge, options)
        .thenApply(
            held -> {
              held.decision().orThrow();
              return held;
            });
  }

  /** Holds units; a refusal is a reservation that is not {@link Reservation#allowed}. */
  public Reservation tryReserve(Charge charge, ReserveOptions options) {
    return core.calls().run(reserving(charge, options), timeout);
  }

  /** As {@link #tryReserve}, without waiting. */
  public CompletableFuture<Reservation> tryReserveAsync(Charge charge, ReserveOptions options) {
    return core.calls().start(reserving(charge, options), timeout);
  }

  /**
   * Does work under a reservation: commits it when the work ends, and gives it back when the work
   * throws, which is thrown on.
   *
   * @throws QuotaExceededException if a limit refuses; the work is not begun
   * @throws E what the work has thrown
   */
  public <T, E extends Exception> T withReservation(
      Charge charge, ReserveOptions options, ReservedWork<T, E> work) throws E {
    try (Reservation held = reserve(charge, options)) {
      T result = work.apply(held);
      held.commitUnlessSettled();
      return result;
    }
  }

  /** As {@link #withReservation(Charge, ReserveOptions, ReservedWork)}, in the usual way. */
  public <T, E extends Exception> T withReservation(Charge charge, ReservedWork<T, E> work)
      throws E {
    return withReservation(charge, ReserveOptions.DEFAULT, work);
  }

  /** As {@link #withReservation(Charge, ReserveOptions, ReservedWork)}, without waiting. */
  public <T> CompletableFuture<T> withReservationAsync(
      Charge charge,
      ReserveOptions options,
      Function<Reservation, ? extends CompletableFuture<T>> work) {
    return reserveAsync(charge, options).thenCompose(held -> held.settledBy(work));
  }

  /**
   * Settles a reservation by its id: with an amount per item, or with what was reserved where there
   * is none. An empty {@code operationId} is made from the reservation's id.
   */
  public Settlement commit(
      String tenantId,
      String reservationId,
      List<Long> amounts,
      Excess excess,
      String operationId) {
    var request =
        Operations.commitRequest(tenantId, reservationId, amounts, excess, operationId);
    return core.calls().run(Operations.commit(request), timeout);
  }

  /** Gives a reservation back by its id; an empty {@code operationId} is made from that. */
  public Released release(String tenantId, String reservationId, String operationId) {
    return core.calls().run(Operations.release(tenantId, reservationId, operationId), timeout);
  }

  /** Moves a reservation's end to so long from now. */
  public Extended extendReservation(String tenantId, String reservationId, Duration ttl) {
    return core.calls().run(Operations.extend(tenantId, reservationId, ttl), timeout);
  }

  /**
   * Takes back an event: gives its quota back, and records a negative event.
   *
   * @param amount the units to take back; 0 for all that are left
   * @param operationId names the call; empty for a random one
   * @param reason for people; may be empty
   */
  public Refunded refund(
      String tenantId, String eventId, long amount, String operationId, String reason) {
    return core.calls()
        .run(Operations.refund(tenantId, eventId, amount, operationId, reason), timeout);
  }

  /** As {@link #refund}, without waiting. */
  public CompletableFuture<Refunded> refundAsync(
      String tenantId, String eventId, long amount, String operationId, String reason) {
    return core.calls()
        .start(Operations.refund(tenantId, eventId, amount, operationId, reason), timeout);
  }

  /** Records usage that has happened, and waits until the service has it. */
  public Recorded recordUsage(Usage usage) {
    return core.calls().run(Operations.record(usage), timeout);
  }

  /** As {@link #recordUsage}, without waiting. */
  public CompletableFuture<Recorded> recordUsageAsync(Usage usage) {
    return core.calls().start(Operations.record(usage), timeout);
  }

  /** Records a list of usage; each succeeds or fails by itself. */
  public List<Result<Recorded>> batchRecordUsage(List<Usage> usage) {
    var events = Operations.requests(usage);
    return Operations.recorded(events, core.calls().run(Operations.record(events), timeout));
  }

  /** As {@link #batchRecordUsage}, without waiting. */
  public CompletableFuture<List<Result<Recorded>>> batchRecordUsageAsync(List<Usage> usage) {
    var events = Operations.requests(usage);
    return core.calls()
        .start(Operations.record(events), timeout)
        .thenApply(reply -> Operations.recorded(events, reply));
  }

  /**
   * Returns the buffer, which records usage without waiting.
   *
   * @throws IllegalStateException if the client was built without
   */
  public UsageBuffer buffer() {
    return core.buffer()
        .orElseThrow(() -> new IllegalStateException("the client was built without a buffer"));
  }

  /** What was counted since the client was built. */
  public Stats stats() {
    return core.stats();
  }

  /** The channel, for the generated stubs: as for streams, which this client has no method for. */
  public Channel channel() {
    return core.channel();
  }

  /** As {@link #close(Duration)}, with {@link #CLOSE_TIMEOUT}. */
  @Override
  public void close() {
    close(CLOSE_TIMEOUT);
  }

  /**
   * Sends what is left in the buffer, and closes the connection; views of
   * {@link #withTimeout} are closed with it.
   *
   * @return whether all was sent; what was not is in the spool, or told to the hooks
   */
  public boolean close(Duration timeout) {
    return core.close(timeout);
  }

  private static List<Charge> named(List<Charge> charges) {
    return charges.stream().map(Operations::named).toList();
  }

  private Op<?, ReserveResponse, Reservation> reserving(Charge asked, ReserveOptions options) {
    Objects.requireNonNull(options, "options");
    Charge charge = Operations.named(asked);
    Op<?, ReserveResponse, ReserveResponse> op = Operations.reserve(charge, options.ttl());
    return core.reserving(op, charge)
        .then(
            granted ->
                new Reservation(
                    settler,
                    charge,
                    granted.decision(),
                    granted.reservationId(),
                    granted.expiresAt(),
                    options));
  }

  /**
   * What a reservation begins with.
   *
   * @param decision what was decided
   * @param reservationId empty where nothing is held
   * @param expiresAt when it ends
   */
  record Granted(Decision decision, String reservationId, Optional<Instant> expiresAt) {}
}
