/**
 * What calls return, as plain readonly objects.
 *
 * Guarantees that what is unset is `undefined`, that enums are the protos' names without their
 * prefix, and that amounts are exact. Refuses to know how calls are made.
 */

import type { TallygateError } from "./errors.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import { Durability as DurabilityNumber } from "./gen/tallygate/v1/event.js";
import {
  type LimitStatus as LimitMessage,
  LimitState as LimitStateNumber,
} from "./gen/tallygate/v1/limit.js";
import { type CommitResponse, ReservationOutcome, WatchCause } from "./gen/tallygate/v1/quota.js";
import type { RecordUsageResponse } from "./gen/tallygate/v1/usage.js";
import { date, millis } from "./time.js";

/** How safely accepted events are held; later is safer. */
export type Durability = "UNSPECIFIED" | "BUFFERED" | "REDIS" | "JOURNAL" | "POSTGRES";

/** Where a tenant stands against one limit. */
export type LimitState = "UNSPECIFIED" | "OK" | "WARNING" | "EXCEEDED" | "SHADOW_EXCEEDED";

/** What became of a reservation. */
export type Outcome =
  | "UNSPECIFIED"
  | "COMMITTED"
  | "COMMITTED_PARTIALLY"
  | "RELEASED"
  | "EXTENDED"
  | "ALREADY_COMMITTED"
  | "ALREADY_RELEASED"
  | "EXPIRED";

/** One limit as it stood when the call was decided. */
export interface LimitStatus {
  readonly limitId: string;
  readonly meter: string;
  readonly state: LimitState;
  /** Units used in the current window, held ones included. */
  readonly used: number;
  readonly limit: number;
  /** Units left, never below 0. */
  readonly remaining: number;
  readonly resetsAt: Date | undefined;
  /** Whose limit: the tenant, or one of its parents. */
  readonly tenantId: string;
  /** For a limit per dimension, `KEY=VALUE`; else empty. */
  readonly scope: string;
  readonly unlimited: boolean;
}

/** Whether work may be done. A refusal is a decision too, not an error. */
export interface Decision {
  readonly allowed: boolean;
  /** Every limit that applied, in the catalog's order; none when decided locally. */
  readonly limits: readonly LimitStatus[];
  /** The id of the first limit that refused. */
  readonly refusedBy: string | undefined;
  /** When the same call could pass, in milliseconds; undefined when allowed or never. */
  readonly retryAfterMs: number | undefined;
  /** Whether this is the stored answer of an earlier call with the same id. */
  readonly replayed: boolean;
  readonly durability: Durability;
  /** One per item when charged. */
  readonly eventIds: readonly string[];
  /** Whether the limits' own rules for an outage decided, as the counters were away. */
  readonly degraded: boolean;
  /** Whether no sidecar answered, and this client's `onAbsent: "open"` decided. */
  readonly local: boolean;
  readonly operationId: string;
}

/** A tenant's limits as they stand. */
export interface Quota {
  readonly limits: readonly LimitStatus[];
  readonly plan: string;
  readonly catalogVersion: number;
}

/** A tenant's limits, as a watch tells them. */
export interface QuotaChange extends Quota {
  readonly cause: "UNSPECIFIED" | "SNAPSHOT" | "CHANGED" | "CROSSED";
}

/** An event was accepted. */
export interface Recorded {
  readonly eventId: string;
  readonly replayed: boolean;
  readonly durability: Durability;
  readonly degraded: boolean;
}

/** What became of one request of a list. */
export type BatchResult<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: TallygateError };

/** How a reservation was settled. */
export interface Settlement {
  /** `BUFFERED`: no answer came, and the buffer carries it on. */
  readonly outcome: Outcome | "BUFFERED";
  readonly limits: readonly LimitStatus[];
  /** The limit that refused what went beyond the reservation. */
  readonly refusedBy: string | undefined;
  /** Per item, what was used but not recorded. */
  readonly unrecorded: readonly number[];
  readonly replayed: boolean;
  readonly durability: Durability;
  readonly eventIds: readonly string[];
  /**
   * Whether the reservation was gone when the work was done, and its usage has been recorded as
   * plain usage instead. `outcome` then says what had become of the reservation.
   */
  readonly recordedAfter: boolean;
  readonly operationId: string;
}

/** What a release came to. */
export interface Released {
  readonly outcome: Outcome;
  readonly replayed: boolean;
}

/** What an extension came to. */
export interface Extended {
  readonly outcome: Outcome;
  /** The new end; undefined unless extended. */
  readonly expiresAt: Date | undefined;
}

/** What a refund took back. */
export interface Refunded {
  readonly eventId: string;
  readonly amount: number;
  readonly replayed: boolean;
  readonly durability: Durability;
  readonly limits: readonly LimitStatus[];
  readonly operationId: string;
}

/** What replies with a decision have in common. @internal */
export interface DecisionMessage {
  allowed: boolean;
  limits: LimitMessage[];
  refusedBy: string;
  retryAfter?: Duration | undefined;
  replayed?: boolean;
  durability?: DurabilityNumber;
  eventIds?: string[];
  degraded?: boolean;
}

/** Return a reply as a decision. @internal */
export function decisionOf(reply: DecisionMessage, operationId: string): Decision {
  return {
    allowed: reply.allowed,
    limits: reply.limits.map(limitOf),
    refusedBy: reply.refusedBy || undefined,
    retryAfterMs: reply.retryAfter && millis(reply.retryAfter),
    replayed: reply.replayed ?? false,
    durability: durabilityOf(reply.durability ?? DurabilityNumber.DURABILITY_UNSPECIFIED),
    eventIds: reply.eventIds ?? [],
    degraded: reply.degraded ?? false,
    local: false,
    operationId,
  };
}

/** Return the decision of `onAbsent: "open"`. @internal */
export function localDecision(operationId: string): Decision {
  return {
    ...decisionOf({ allowed: true, limits: [], refusedBy: "" }, operationId),
    local: true,
  };
}

/** Return a limit as callers see it. @internal */
export function limitOf(message: LimitMessage): LimitStatus {
  return {
    limitId: message.limitId,
    meter: message.meter,
    state: enumName(LimitStateNumber, message.state, "LIMIT_STATE_") as LimitState,
    used: message.used,
    limit: message.limit,
    remaining: message.remaining,
    resetsAt: message.resetsAt && date(message.resetsAt),
    tenantId: message.tenantId,
    scope: message.scope,
    unlimited: message.unlimited,
  };
}

/** Return a commit's reply as a settlement. @internal */
export function settlementOf(reply: CommitResponse, operationId: string): Settlement {
  return {
    outcome: outcomeOf(reply.outcome),
    limits: reply.limits.map(limitOf),
    refusedBy: reply.refusedBy || undefined,
    unrecorded: reply.unrecorded,
    replayed: reply.replayed,
    durability: durabilityOf(reply.durability),
    eventIds: reply.eventIds,
    recordedAfter: false,
    operationId,
  };
}

/** @internal */
export function recordedOf(reply: RecordUsageResponse): Recorded {
  const { eventId, replayed, degraded } = reply;
  return { eventId, replayed, durability: durabilityOf(reply.durability), degraded };
}

/** @internal */
export function durabilityOf(value: DurabilityNumber): Durability {
  return enumName(DurabilityNumber, value, "DURABILITY_") as Durability;
}

/** @internal */
export function outcomeOf(value: ReservationOutcome): Outcome {
  return enumName(ReservationOutcome, value, "RESERVATION_OUTCOME_") as Outcome;
}

/** @internal */
export function causeOf(value: WatchCause): QuotaChange["cause"] {
  return enumName(WatchCause, value, "WATCH_CAUSE_") as QuotaChange["cause"];
}

/** A value that a newer service has added reads as unspecified. */
function enumName(names: Record<number, string>, value: number, prefix: string): string {
  return (names[value] ?? names[0] ?? "").slice(prefix.length);
}
