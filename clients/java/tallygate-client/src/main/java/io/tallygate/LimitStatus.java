package io.tallygate;

import java.time.Instant;
import java.util.Optional;

/**
 * One limit as it stood when the call was decided.
 *
 * @param limitId the limit's id in the catalog
 * @param meter the meter it limits
 * @param state where the tenant stands
 * @param used units used in the current window, held ones included
 * @param limit the limit, in the meter's smallest unit
 * @param remaining units left, never below 0
 * @param resetsAt when the window ends; empty where it does not
 * @param tenantId whose limit: the tenant, or one of its parents
 * @param scope for a limit per dimension, {@code KEY=VALUE}; else empty
 * @param unlimited whether there is no bound
 */
public record LimitStatus(
    String limitId,
    String meter,
    LimitState state,
    long used,
    long limit,
    long remaining,
    Optional<Instant> resetsAt,
    String tenantId,
    String scope,
    boolean unlimited) {}
