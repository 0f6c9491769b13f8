package io.tallygate.metering;

import io.grpc.Context;
import io.tallygate.Charge;
import io.tallygate.Decision;
import io.tallygate.Reservation;
import io.tallygate.ReserveOptions;
import io.tallygate.TallygateClient;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;

/**
 * The charge of one request, while it is served.
 *
 * <p>The app says what the request came to; the middleware that has begun the charge ends it, once.
 */
public final class RequestCharge {
  private static final Logger LOG = System.getLogger("io.tallygate");
  private static final int ID_LENGTH_MAX = 128;

  private final TallygateClient client;
  private final Charge charge;
  private final Decision decision;
  private final Optional<Reservation> reservation;
  private final boolean refundFailures;
  private final Set<String> said = new HashSet<>();
  private boolean cancelled;
  private boolean ended;

  private RequestCharge(
      TallygateClient client,
      Charge charge,
      Decision decision,
      Optional<Reservation> reservation,
      boolean refundFailures) {
    this.client = client;
    this.charge = charge;
    this.decision = decision;
    this.reservation = reservation;
    this.refundFailures = refundFailures;
  }

  /**
   * Begins the charge of a request.
   *
   * @throws io.tallygate.QuotaExceededException if a limit refuses
   * @throws io.tallygate.TallygateException if there is no answer, or no valid one
   */
  public static RequestCharge begin(
      TallygateClient client,
      Charge charge,
      MeteringMode mode,
      ReserveOptions options,
      boolean refundFailures) {
    if (mode == MeteringMode.CONSUME) {
      Decision decision = client.checkAndConsume(charge).orThrow();
      return new RequestCharge(client, charge, decision, Optional.empty(), refundFailures);
    }
    Reservation held = client.reserve(charge, options);
    return new RequestCharge(client, charge, held.decision(), Optional.of(held), false);
  }

  /** What was decided when the request came. */
  public Decision decision() {
    return decision;
  }

  /** The name of the logical call. */
  public String operationId() {
    return decision.operationId();
  }

  /**
   * Says what the request came to; the last one counts.
   *
   * @throws IllegalArgumentException if the meter is no item of the request
   * @throws IllegalStateException if the request was charged before it was served
   */
  public void set(String meter, long amount) {
    held().actual(meter, amount);
    say(meter);
  }

  /**
   * Says that the request came to so much more; the first such call begins at 0.
   *
   * @throws IllegalArgumentException if the meter is no item of the request
   * @throws IllegalStateException if the request was charged before it was served
   */
  public void add(String meter, long more) {
    held().add(meter, more);
    say(meter);
  }

  /** Says what was measured of a meter, unless the app itself has said so or the charge is over. */
  public void counted(String meter, long amount) {
    synchronized (this) {
      if (ended || said.contains(meter)) {
        return;
      }
    }
    held().actual(meter, amount);
  }

  /** Says that nothing is to be charged, however the request ends. */
  public synchronized void cancel() {
    cancelled = true;
  }

  /**
   * Ends the charge, without waiting; what comes later does nothing. What fails is logged, as the
   * request was served.
   *
   * @param charged whether it is to be charged, as far as the way it ended says
   */
  public CompletableFuture<Void> end(boolean charged) {
    boolean keep;
    synchronized (this) {
      if (ended) {
        return CompletableFuture.completedFuture(null);
      }
      ended = true;
      keep = charged && !cancelled;
    }
    CompletableFuture<?> ending;
    // The request's own context ends with it, and would take the settling along.
    Context context = Context.current().fork();
    Context outer = context.attach();
    try {
      ending = reservation.isPresent() ? settle(reservation.get(), keep) : refund(keep);
    } catch (RuntimeException error) {
      ending = CompletableFuture.failedFuture(error);
    } finally {
      context.detach(outer);
    }
    return ending.handle(
        (done, error) -> {
          if (error != null) {
            LOG.log(
                Level.WARNING,
                "the charge {0} could not be settled: {1}",
                operationId(),
                error.getMessage());
          }
          return null;
        });
  }

  private static CompletableFuture<?> settle(Reservation held, boolean keep) {
    if (!held.unsettled()) {
      return CompletableFuture.completedFuture(null);
    }
    return keep ? held.commitAsync() : held.releaseAsync();
  }

  private CompletableFuture<?> refund(boolean keep) {
    if (keep || !refundFailures) {
      return CompletableFuture.completedFuture(null);
    }
    List<CompletableFuture<?>> refunds = new ArrayList<>();
    for (String eventId : decision.eventIds()) {
      // Made of the request's, so that a repeat gives nothing back twice.
      String named = eventId + "#f";
      int from = Math.max(0, named.length() - ID_LENGTH_MAX);
      refunds.add(
          client.refundAsync(
              charge.tenantId(), eventId, 0, named.substring(from), "the request failed"));
    }
    return CompletableFuture.allOf(refunds.toArray(CompletableFuture<?>[]::new));
  }

  private synchronized void say(String meter) {
    said.add(meter);
  }

  private Reservation held() {
    return reservation.orElseThrow(
        () -> new IllegalStateException("the request was charged before it was served"));
  }
}
