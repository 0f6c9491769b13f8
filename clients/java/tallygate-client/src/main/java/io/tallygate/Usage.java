package io.tallygate;

import java.time.Instant;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * Usage that has already happened.
 *
 * @param tenantId who pays
 * @param meter the meter's name in the catalog
 * @param amount in the meter's smallest unit, 1 to 2^53 - 1
 * @param eventId unique per tenant; empty for a random one
 * @param operationId names the logical call; empty for the event's id
 * @param eventTime when it was used; empty for now
 * @param dimensions at most 16; keys up to 64 and values up to 256 characters
 * @param context the circumstances
 * @param metadata as JSON at most 4 KiB: null, Boolean, Number, String, List and Map
 * @param minDurability the least that the caller accepts
 */
public record Usage(
    String tenantId,
    String meter,
    long amount,
    String eventId,
    String operationId,
    Optional<Instant> eventTime,
    Map<String, String> dimensions,
    EventContext context,
    Map<String, ?> metadata,
    Durability minDurability) {
  /** Checks and copies. */
  public Usage {
    Objects.requireNonNull(tenantId, "tenantId");
    Objects.requireNonNull(meter, "meter");
    Objects.requireNonNull(eventId, "eventId");
    Objects.requireNonNull(operationId, "operationId");
    Objects.requireNonNull(eventTime, "eventTime");
    Objects.requireNonNull(context, "context");
    Objects.requireNonNull(minDurability, "minDurability");
    dimensions = Map.copyOf(dimensions);
    metadata = Collections.unmodifiableMap(new LinkedHashMap<>(metadata));
  }

  /** Returns usage of one meter, now. */
  public static Usage of(String tenantId, String meter, long amount) {
    return builder(tenantId, meter, amount).build();
  }

  /** Returns a builder of usage by a tenant. */
  public static Builder builder(String tenantId, String meter, long amount) {
    return new Builder(tenantId, meter, amount);
  }

  /** Makes usage part by part. */
  public static final class Builder {
    private final String tenantId;
    private final String meter;
    private final long amount;
    private String eventId = "";
    private String operationId = "";
    private Optional<Instant> eventTime = Optional.empty();
    private Map<String, String> dimensions = Map.of();
    private EventContext context = EventContext.EMPTY;
    private Map<String, ?> metadata = Map.of();
    private Durability minDurability = Durability.UNSPECIFIED;

    private Builder(String tenantId, String meter, long amount) {
      this.tenantId = tenantId;
      this.meter = meter;
      this.amount = amount;
    }

    /** Names the event: however often it is sent, it is recorded once. */
    public Builder eventId(String eventId) {
      this.eventId = eventId;
      return this;
    }

    /** Names the logical call that caused it. */
    public Builder operationId(String operationId) {
      this.operationId = operationId;
      return this;
    }

    /** Says when it was used; this decides the billing period. */
    public Builder eventTime(Instant eventTime) {
      this.eventTime = Optional.of(eventTime);
      return this;
    }

    /** Says of which kind it was. */
    public Builder dimensions(Map<String, String> dimensions) {
      this.dimensions = dimensions;
      return this;
    }

    /** Says the circumstances. */
    public Builder context(EventContext context) {
      this.context = context;
      return this;
    }

    /** Adds what is kept with the event and means nothing to the service. */
    public Builder metadata(Map<String, ?> metadata) {
      this.metadata = metadata;
      return this;
    }

    /** Says how safely the event has to be held before the answer. */
    public Builder minDurability(Durability minDurability) {
      this.minDurability = minDurability;
      return this;
    }

    /** Returns the usage. */
    public Usage build() {
      return new Usage(
          tenantId,
          meter,
          amount,
          eventId,
          operationId,
          eventTime,
          dimensions,
          context,
          metadata,
          minDurability);
    }
  }
}
