package io.tallygate;

import java.util.List;

/**
 * A tenant's limits as they stand.
 *
 * @param limits in the catalog's order
 * @param plan the plan the tenant is on
 * @param catalogVersion the version of the catalog that says so
 */
public record Quota(List<LimitStatus> limits, String plan, long catalogVersion) {
  /** Copies. */
  public Quota {
    limits = List.copyOf(limits);
  }
}
