package io.tallygate;

import io.grpc.Channel;
import io.tallygate.v1.RecordUsageRequest;
import io.tallygate.v1.ReserveResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ScheduledExecutorService;
import java.util.function.Function;

/** What all views of one client share: the connection, the buffer, the local policy. */
final class Core {
  private final Link link;
  private final Calls calls;
  private final Counters counters;
  private final Optional<UsageBuffer> buffer;
  private final OnAbsent onAbsent;
  private final ScheduledExecutorService timer;

  Core(
      Link link,
      Counters counters,
      Optional<UsageBuffer> buffer,
      OnAbsent onAbsent,
      ScheduledExecutorService timer) {
    this.link = link;
    this.calls = new Calls(link.channel(), counters);
    this.counters = counters;
    this.buffer = buffer;
    this.onAbsent = onAbsent;
    this.timer = timer;
  }

  Calls calls() {
    return calls;
  }

  Optional<UsageBuffer> buffer() {
    return buffer;
  }

  ScheduledExecutorService timer() {
    return timer;
  }

  Channel channel() {
    return link.channel();
  }

  Stats stats() {
    return counters.stats(
        buffer.map(UsageBuffer::pending).orElse(0),
        buffer.map(UsageBuffer::spoolBytes).orElse(0L));
  }

  boolean close(Duration timeout) {
    if (!calls.close()) {
      return true;
    }
    boolean flushed = buffer.map(each -> each.close(timeout)).orElse(true);
    link.close();
    timer.shutdownNow();
    return flushed;
  }

  Op<?, ?, Decision> consume(Charge charge) {
    return absent(
        Operations.consume(charge),
        () -> {
          List<String> eventIds = buffer.map(each -> recorded(charge, each)).orElse(List.of());
          return Decision.granted(charge.operationId(), eventIds);
        });
  }

  Op<?, ?, Decision> check(Charge charge) {
    return absent(
        Operations.check(charge), () -> Decision.granted(charge.operationId(), List.of()));
  }

  Op<?, ReserveResponse, TallygateClient.Granted> reserving(
      Op<?, ReserveResponse, ReserveResponse> op, Charge charge) {
    Function<ReserveResponse, TallygateClient.Granted> granted =
        reply ->
            new TallygateClient.Granted(
                Convert.decision(reply, charge.operationId()),
                reply.getReservationId(),
                reply.hasExpiresAt()
                    ? Optional.of(Convert.instant(reply.getExpiresAt()))
                    : Optional.empty());
    return absent(
        op.then(granted),
        () ->
            new TallygateClient.Granted(
                Decision.granted(charge.operationId(), List.of()),
                "",
                Optional.<Instant>empty()));
  }

  /** Lets the local policy decide where no answer comes. */
  private <Q, R, T> Op<Q, R, T> absent(
      Op<Q, R, T> op, java.util.function.Supplier<T> granted) {
    return op.orElse(
        error -> {
          if (!Errors.absent(error)) {
            throw error;
          }
          counters.local(Calls.name(op), onAbsent);
          if (onAbsent == OnAbsent.CLOSED) {
            throw error;
          }
          return granted.get();
        });
  }

  /** Records what was granted here, under the ids that the service would have given. */
  private List<String> recorded(Charge charge, UsageBuffer buffer) {
    Instant now = Instant.now();
    List<Item> items = charge.items();
    String[] ids = new String[items.size()];
    for (int index = 0; index < ids.length; index++) {
      Item item = items.get(index);
      ids[index] = charge.operationId() + ":" + index;
      RecordUsageRequest event =
          Convert.usage(
              Usage.builder(charge.tenantId(), item.meter(), item.amount())
                  .eventId(ids[index])
                  .operationId(ids[index])
                  .eventTime(now)
                  .dimensions(item.dimensions())
                  .context(charge.context())
                  .build());
      try {
        buffer.add(event);
      } catch (BufferFullException | SpoolException | ClosedException lost) {
        // The work is granted all the same: who opens the policy prefers it to the record.
        counters.rejected(Convert.usage(event), lost);
      }
    }
    return List.of(ids);
  }
}
