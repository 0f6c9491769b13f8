package io.tallygate;

import java.util.Map;
import java.util.Objects;

/**
 * One use of one meter.
 *
 * @param meter the meter's name in the catalog
 * @param amount in the meter's smallest unit, 1 to 2^53 - 1
 * @param dimensions at most 16; keys up to 64 and values up to 256 characters
 */
public record Item(String meter, long amount, Map<String, String> dimensions) {
  /** Checks and copies. */
  public Item {
    Objects.requireNonNull(meter, "meter");
    dimensions = Map.copyOf(dimensions);
  }

  /** Returns an item without dimensions. */
  public static Item of(String meter, long amount) {
    return new Item(meter, amount, Map.of());
  }
}
