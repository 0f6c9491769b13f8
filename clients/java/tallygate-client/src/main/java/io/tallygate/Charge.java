package io.tallygate;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * What to charge, to check or to reserve.
 *
 * @param tenantId who pays
 * @param items 1 to 64 uses, charged together or not at all
 * @param operationId names the logical call; empty for a random one
 * @param context the circumstances, stored with each event
 * @param minDurability the least that the caller accepts; only for a charge
 */
public record Charge(
    String tenantId,
    List<Item> items,
    String operationId,
    EventContext context,
    Durability minDurability) {
  /** Checks and copies. */
  public Charge {
    Objects.requireNonNull(tenantId, "tenantId");
    Objects.requireNonNull(operationId, "operationId");
    Objects.requireNonNull(context, "context");
    Objects.requireNonNull(minDurability, "minDurability");
    items = List.copyOf(items);
  }

  /** Returns a charge of one meter. */
  public static Charge of(String tenantId, String meter, long amount) {
    return builder(tenantId).item(meter, amount).build();
  }

  /** Returns a builder of a charge to a tenant. */
  public static Builder builder(String tenantId) {
    return new Builder(tenantId);
  }

  Charge named(String operationId) {
    return new Charge(tenantId, items, operationId, context, minDurability);
  }

  /** Makes a charge item by item. */
  public static final class Builder {
    private final String tenantId;
    private final List<Item> items = new ArrayList<>();
    private String operationId = "";
    private EventContext context = EventContext.EMPTY;
    private Durability minDurability = Durability.UNSPECIFIED;

    private Builder(String tenantId) {
      this.tenantId = tenantId;
    }

    /** Adds a use of a meter. */
    public Builder item(String meter, long amount) {
      return item(Item.of(meter, amount));
    }

    /** Adds a use of a meter, with dimensions. */
    public Builder item(String meter, long amount, Map<String, String> dimensions) {
      return item(new Item(meter, amount, dimensions));
    }

    /** Adds an item. */
    public Builder item(Item item) {
      items.add(item);
      return this;
    }

    /** Adds items. */
    public Builder items(List<Item> more) {
      items.addAll(more);
      return this;
    }

    /** Names the logical call: a later one of the same name gets the same answer. */
    public Builder operationId(String operationId) {
      this.operationId = operationId;
      return this;
    }

    /** Says the circumstances. */
    public Builder context(EventContext context) {
      this.context = context;
      return this;
    }

    /** Says how safely the events have to be held before the answer. */
    public Builder minDurability(Durability minDurability) {
      this.minDurability = minDurability;
      return this;
    }

    /** Returns the charge. */
    public Charge build() {
      return new Charge(tenantId, items, operationId, context, minDurability);
    }
  }
}
