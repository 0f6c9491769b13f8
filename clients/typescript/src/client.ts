/**
 * app ─▶ [ client ] ─▶ sidecar: ask before costly work, tell after.
 *
 * Guarantees that a logical call has one `operationId` over all of its retries, that a refusal is a
 * value and everything else a typed error, and that usage let pass by `onAbsent: "open"` is recorded
 * where there is a buffer. Refuses to know limits: the service decides.
 */

import { UsageBuffer } from "./buffer.js";
import { Calls } from "./calls.js";
import { fromItem, QuotaExceededError } from "./errors.js";
import type { CallOptions, ClientOptions } from "./options.js";
import {
  type CheckAndConsumeRequest as ConsumeMessage,
  Excess,
  type ItemError,
  QuotaServiceService as quota,
  Reason,
  UsageServiceService as usage,
} from "./proto.js";
import type {
  CheckRequest,
  CommitRequest,
  QuotaRequest,
  RefundRequest,
  ReservationRequest,
  ReserveRequest,
  WorkOptions,
} from "./questions.js";
import {
  type ConsumeRequest,
  consumeMessage,
  contextMessage,
  dimensions,
  inList,
  integer,
  itemMessages,
  newId,
  text,
  type Usage,
  usageMessage,
} from "./requests.js";
import { commitIdOf, Reservation, type ReservationHost, releaseIdOf } from "./reservation.js";
import {
  type BatchResult,
  type Decision,
  decisionOf,
  durabilityOf,
  type Extended,
  limitOf,
  localDecision,
  outcomeOf,
  type Quota,
  type QuotaChange,
  type Recorded,
  recordedOf,
  type Refunded,
  type Released,
  type Settlement,
  settlementOf,
} from "./results.js";
import type { Stats } from "./stats.js";
import { date, duration } from "./time.js";
import { type WatchOptions, watch } from "./watch.js";

const TTL_MS = 60_000;
const CLOSE_TIMEOUT_MS = 5000;

/** A client of one sidecar. It has one connection; make one and share it. */
export class Client {
  /** Records usage without waiting; undefined unless the `buffer` option is set. */
  readonly buffer: UsageBuffer | undefined;
  readonly #calls: Calls;
  readonly #reservations: ReservationHost;

  constructor(options: ClientOptions = {}) {
    this.#calls = new Calls(options);
    const { buffer } = options;
    if (buffer) {
      this.buffer = new UsageBuffer(this.#calls, buffer === true ? {} : buffer);
    }
    this.#reservations = {
      buffer: this.buffer,
      commit: (request, call) =>
        this.#calls.make(quota.commit, request.operationId, () => request, call),
      release: (tenant, reservationId, call) => this.release({ tenant, reservationId }, call),
      extend: (tenant, reservationId, ttlMs, call) =>
        this.extend({ tenant, reservationId, ttlMs }, call),
      record: (requests, operationId, call) =>
        this.#calls.make(usage.batchRecordUsage, operationId, () => ({ requests }), call),
    };
  }

  /** Charge the items against every limit that applies, all or none, and record them. */
  async checkAndConsume(request: ConsumeRequest, options?: CallOptions): Promise<Decision> {
    const operationId = newId(request.operationId);
    const build = () => consumeMessage(request, operationId);
    try {
      const reply = await this.#calls.make(quota.checkAndConsume, operationId, build, options);
      return decisionOf(reply, operationId);
    } catch (error) {
      this.#calls.decideLocally(quota.checkAndConsume, error);
    }
    return { ...localDecision(operationId), eventIds: this.#recordGranted(build()) };
  }

  /** Record what was let pass without an answer: it is not free. */
  #recordGranted(granted: ConsumeMessage): string[] {
    if (this.buffer === undefined) {
      return [];
    }
    const { tenantId: tenant, operationId, context, minDurability } = granted;
    const eventTime = new Date();
    const events = granted.items.map((item, index) => {
      // As the service itself would name it: if only its reply was lost, it is recorded once.
      const eventId = `${operationId}:${index}`;
      const event = usageMessage({
        ...item,
        tenant,
        eventId,
        operationId: eventId,
        eventTime,
      });
      return { ...event, context, minDurability };
    });
    this.buffer.recordAll(events);
    return events.map((event) => event.eventId);
  }

  /** Say what `checkAndConsume` would answer now, without charging. */
  async check(request: CheckRequest, options?: CallOptions): Promise<Decision> {
    const operationId = newId(undefined);
    const build = () => ({
      tenantId: text(request.tenant, "tenant_id"),
      items: itemMessages(request.items),
      context: contextMessage(request.context),
    });
    try {
      const reply = await this.#calls.make(quota.check, operationId, build, options);
      return decisionOf(reply, operationId);
    } catch (error) {
      this.#calls.decideLocally(quota.check, error);
      return localDecision(operationId);
    }
  }

  /** Decide each request of a list by itself; one that is wrong fails alone. */
  async batchCheckAndConsume(
    requests: readonly ConsumeRequest[],
    options?: CallOptions,
  ): Promise<BatchResult<Decision>[]> {
    const ids = requests.map((request) => newId(request.operationId));
    const { results } = await this.#calls.make(
      quota.batchCheckAndConsume,
      newId(undefined),
      () => ({
        requests: inList(requests, (request, index) => consumeMessage(request, ids[index] ?? "")),
      }),
      options,
    );
    return results.map(({ response, error }, index) => {
      const operationId = ids[index] ?? "";
      return response
        ? { ok: true, value: decisionOf(response, operationId) }
        : { ok: false, error: fromItem(error ?? NO_RESULT, operationId) };
    });
  }

  /** Read where a tenant stands. */
  async getQuota(request: QuotaRequest, options?: CallOptions): Promise<Quota> {
    const build = () => quotaMessage(request);
    const reply = await this.#calls.make(quota.getQuota, newId(undefined), build, options);
    const { plan, catalogVersion } = reply;
    return { limits: reply.limits.map(limitOf), plan, catalogVersion };
  }

  /**
   * Tell where a tenant stands, now and on each change, until the loop is left or the signal ends.
   *
   * Throws `UnavailableError` when the service can no longer say, unless `reconnect` is set.
   */
  watchQuota(request: QuotaRequest, options: WatchOptions = {}): AsyncGenerator<QuotaChange> {
    return watch(options, () =>
      this.#calls.transport.stream(quota.watchQuota, quotaMessage(request), options.signal),
    );
  }

  /**
   * Hold units for work whose cost shows at its end. A refusal is a reservation too, not `allowed`.
   *
   * Commit or release it: `await using` releases what was not settled. `withReservation` does all
   * of it.
   */
  async reserve(request: ReserveRequest, options?: CallOptions): Promise<Reservation> {
    const operationId = newId(request.operationId);
    const build = () => ({
      tenantId: text(request.tenant, "tenant_id"),
      items: itemMessages(request.items),
      operationId: text(operationId, "operation_id"),
      ttl: request.ttlMs === undefined ? undefined : ttl(request.ttlMs),
      context: contextMessage(request.context),
    });
    let decision: Decision;
    let named = { id: "", expiresAt: undefined as Date | undefined };
    try {
      const reply = await this.#calls.make(quota.reserve, operationId, build, options);
      decision = decisionOf(reply, operationId);
      named = {
        id: reply.reservationId,
        expiresAt: reply.expiresAt && date(reply.expiresAt),
      };
    } catch (error) {
      this.#calls.decideLocally(quota.reserve, error);
      decision = localDecision(operationId);
    }
    const { tenantId: tenant, items, context } = build();
    const held = { tenant, items, context, ttlMs: request.ttlMs ?? TTL_MS };
    return new Reservation(this.#reservations, held, decision, named);
  }

  /**
   * Reserve, do the work, and commit what it came to: what it `set`, else what was reserved.
   *
   * Returns what the work returns. When the work throws, the units are given back and its error is
   * thrown on; a refusal throws `QuotaExceededError`. The reservation is kept alive meanwhile.
   */
  async withReservation<T>(
    request: ReserveRequest,
    work: (reservation: Reservation) => Promise<T> | T,
    options: WorkOptions = {},
  ): Promise<T> {
    const reservation = await this.reserve(request, options);
    if (!reservation.allowed) {
      throw new QuotaExceededError(reservation.decision);
    }
    reservation.keepAlive();
    let result: T;
    try {
      result = await work(reservation);
    } catch (error) {
      // Where that fails too, the units come back at the reservation's end.
      await reservation.release().catch(() => undefined);
      throw error;
    }
    // Without the caller's signal: the work is done, whoever has lost interest.
    await reservation.commit({ excess: options.excess, timeoutMs: options.timeoutMs });
    return result;
  }

  /** Settle a reservation that was made elsewhere. */
  async commit(request: CommitRequest, options?: CallOptions): Promise<Settlement> {
    const amounts = request.amounts ?? [];
    const operationId = request.operationId || commitIdOf(request.reservationId);
    const build = () => ({
      ...reservationMessage(request),
      amounts: amounts.map((amount, index) => integer(amount, `amounts[${index}]`)),
      operationId: text(operationId, "operation_id"),
      excess: request.excess === "record" ? Excess.EXCESS_RECORD : Excess.EXCESS_ASK,
    });
    return settlementOf(
      await this.#calls.make(quota.commit, operationId, build, options),
      operationId,
    );
  }

  /** Give a reservation back that was made elsewhere. */
  async release(
    request: ReservationRequest & { readonly operationId?: string | undefined },
    options?: CallOptions,
  ): Promise<Released> {
    const operationId = request.operationId || releaseIdOf(request.reservationId);
    const build = () => ({
      ...reservationMessage(request),
      operationId: text(operationId, "operation_id"),
    });
    const reply = await this.#calls.make(quota.release, operationId, build, options);
    return { outcome: outcomeOf(reply.outcome), replayed: reply.replayed };
  }

  /** Move a reservation's end to `ttlMs` from now. */
  async extend(
    request: ReservationRequest & { readonly ttlMs?: number | undefined },
    options?: CallOptions,
  ): Promise<Extended> {
    const build = () => ({
      ...reservationMessage(request),
      ttl: ttl(request.ttlMs ?? TTL_MS),
    });
    const { outcome, expiresAt } = await this.#calls.make(
      quota.extendReservation,
      newId(undefined),
      build,
      options,
    );
    return { outcome: outcomeOf(outcome), expiresAt: expiresAt && date(expiresAt) };
  }

  /** Give back all or part of an event. */
  async refund(request: RefundRequest, options?: CallOptions): Promise<Refunded> {
    const operationId = newId(request.operationId);
    const build = () => ({
      tenantId: text(request.tenant, "tenant_id"),
      eventId: text(request.eventId, "event_id"),
      amount: integer(request.amount ?? 0, "amount"),
      operationId: text(operationId, "operation_id"),
      reason: text(request.reason ?? "", "reason"),
    });
    const reply = await this.#calls.make(quota.refund, operationId, build, options);
    return {
      operationId,
      eventId: reply.eventId,
      amount: reply.amount,
      replayed: reply.replayed,
      durability: durabilityOf(reply.durability),
      limits: reply.limits.map(limitOf),
    };
  }

  /** Record an event and wait until it is safe. `buffer.record` does not wait. */
  async recordUsage(event: Usage, options?: CallOptions): Promise<Recorded> {
    const eventId = newId(event.eventId);
    const build = () => usageMessage({ ...event, eventId });
    return recordedOf(await this.#calls.make(usage.recordUsage, eventId, build, options));
  }

  /** Record a list; one event that is wrong fails alone. */
  async batchRecordUsage(
    events: readonly Usage[],
    options?: CallOptions,
  ): Promise<BatchResult<Recorded>[]> {
    const ids = events.map((event) => newId(event.eventId));
    const build = () => ({
      requests: inList(events, (event, index) => usageMessage({ ...event, eventId: ids[index] })),
    });
    const { results } = await this.#calls.make(
      usage.batchRecordUsage,
      newId(undefined),
      build,
      options,
    );
    return results.map(({ response, error }, index) =>
      response
        ? { ok: true, value: recordedOf(response) }
        : { ok: false, error: fromItem(error ?? NO_RESULT, ids[index] ?? "") },
    );
  }

  /** What was counted since the client was made. */
  stats(): Stats {
    const spooled = this.buffer?.spooled ?? { spoolBytes: 0, spoolTorn: 0 };
    const pending = this.buffer?.pending ?? 0;
    return this.#calls.counters.snapshot({ ...spooled, pending });
  }

  /**
   * Wait for calls under way and flush the buffer, then end the connection. Says whether all that
   * was recorded is sent; what is not lies in the spool, or, without one, is lost with the process:
   * `stats().pending` counts it.
   */
  async close(timeoutMs = CLOSE_TIMEOUT_MS): Promise<boolean> {
    const until = Date.now() + timeoutMs;
    await this.#calls.finish(timeoutMs);
    const flushed = (await this.buffer?.close(Math.max(0, until - Date.now()))) ?? true;
    this.#calls.transport.close();
    return flushed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Never sent by the service: a result that is neither. */
const NO_RESULT: ItemError = {
  reason: Reason.REASON_UNSPECIFIED,
  code: 13,
  message: "no result",
  field: "",
  retryAfter: undefined,
};

function quotaMessage(request: QuotaRequest) {
  return {
    tenantId: text(request.tenant, "tenant_id"),
    meters: (request.meters ?? []).map((meter, index) => text(meter, `meters[${index}]`)),
    dimensions: dimensions(request.dimensions, "dimensions"),
  };
}

function reservationMessage(request: ReservationRequest) {
  return {
    tenantId: text(request.tenant, "tenant_id"),
    reservationId: text(request.reservationId, "reservation_id"),
  };
}

function ttl(ms: number) {
  return duration(integer(ms, "ttl"));
}
