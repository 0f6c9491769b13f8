/**
 * Units that are held while work goes on, and how they are settled.
 *
 * Guarantees that a reservation is settled once, that work which was done is recorded even if its
 * reservation is gone or no answer comes (with a buffer), and never twice: all of these carry the
 * ids that the service's own commit gives. Refuses to know what the work is.
 */

import type { UsageBuffer } from "./buffer.js";
import { isGone } from "./buffer-sender.js";
import { fromItem, invalidField, isNoAnswer, NotFoundError } from "./errors.js";
import type { CallOptions } from "./options.js";
import type { BatchRecordUsageResponse, CommitResponse } from "./proto.js";
import {
  type CommitRequest,
  Durability,
  type EventContext,
  Excess,
  type Item as ItemMessage,
  type RecordUsageRequest,
  ReservationOutcome,
} from "./proto.js";
import { integer } from "./requests.js";
import {
  type Decision,
  type Extended,
  outcomeOf,
  type Released,
  type Settlement,
  settlementOf,
} from "./results.js";
import { timestamp } from "./time.js";

/** Ids end at 128 characters; two of them tell a commit from a release. */
const RESERVATION_IN_ID = 126;

/** What to do with usage beyond what was reserved: ask the limits for it, or record it anyway. */
export type ExcessPolicy = "ask" | "record";

/** How to settle. */
export interface CommitOptions extends CallOptions {
  /** What was used, per item. By default what was set, else what was reserved. */
  readonly amounts?: readonly number[] | undefined;
  /** By default `record`: the work is done. */
  readonly excess?: ExcessPolicy | undefined;
  readonly operationId?: string | undefined;
}

/** What a reservation needs of its client. @internal */
export interface ReservationHost {
  readonly buffer: UsageBuffer | undefined;
  commit(request: CommitRequest, options: CallOptions): Promise<CommitResponse>;
  release(tenant: string, id: string, options: CallOptions): Promise<Released>;
  extend(tenant: string, id: string, ttlMs: number, options: CallOptions): Promise<Extended>;
  record(
    requests: RecordUsageRequest[],
    operationId: string,
    options: CallOptions,
  ): Promise<BatchRecordUsageResponse>;
}

/** What was asked for, as it was sent. @internal */
export interface Held {
  readonly tenant: string;
  readonly items: readonly ItemMessage[];
  readonly context: EventContext | undefined;
  readonly ttlMs: number;
}

/** The answer to `reserve`: a decision, and where it is allowed, units held until settled. */
export class Reservation {
  readonly decision: Decision;
  /** The service's name of it; empty when refused or local. */
  readonly id: string;
  /** When it ends unless extended; undefined when refused or local. */
  expiresAt: Date | undefined;
  readonly #host: ReservationHost;
  readonly #held: Held;
  readonly #used: (number | undefined)[];
  #heartbeat: NodeJS.Timeout | undefined;
  #settled = false;
  /** By its holder, who so has said that nothing was used. */
  #released = false;
  #settlement: Settlement | undefined;

  /** @internal */
  constructor(
    host: ReservationHost,
    held: Held,
    decision: Decision,
    named: { id: string; expiresAt: Date | undefined },
  ) {
    this.#host = host;
    this.#held = held;
    this.#used = held.items.map(() => undefined);
    this.decision = decision;
    this.id = named.id;
    this.expiresAt = named.expiresAt;
  }

  get allowed(): boolean {
    return this.decision.allowed;
  }

  /** What a commit came to; undefined before. */
  get settlement(): Settlement | undefined {
    return this.#settlement;
  }

  /** Say what a meter's items came to in the end, in place of what was reserved. */
  set(meter: string, amount: number): void {
    this.#used[this.#indexOf(meter)] = integer(amount, "amount");
  }

  /** Add to what a meter's item came to, from 0. */
  add(meter: string, amount: number): void {
    const index = this.#indexOf(meter);
    this.#used[index] = integer((this.#used[index] ?? 0) + amount, "amount");
  }

  /**
   * Settle with what was used, and record it.
   *
   * When no answer comes and the client has a buffer, that carries the commit on, and the outcome
   * is `BUFFERED`. When the reservation had ended before, the usage is recorded all the same and
   * `recordedAfter` is set; unless it ended by `release`. A repeat settles nothing again.
   */
  async commit(options: CommitOptions = {}): Promise<Settlement> {
    const before = this.#settlement;
    if (before?.outcome === "BUFFERED" || before?.recordedAfter) {
      return before;
    }
    this.stopKeepAlive();
    const amounts = (options.amounts ?? this.#amounts()).map((amount, index) =>
      integer(amount, `amounts[${index}]`),
    );
    if (amounts.length !== this.#held.items.length) {
      const held = this.#held.items.length;
      throw invalidField("amounts", `holds ${amounts.length} amounts for ${held} items`);
    }
    const settled = this.decision.local
      ? this.#recordLocally(this.#released ? amounts.map(() => 0) : amounts)
      : await this.#commit(amounts, options);
    this.#settled = true;
    this.#settlement = settled;
    return settled;
  }

  /** Give the units back: nothing was used. */
  async release(options: CallOptions = {}): Promise<Released> {
    this.stopKeepAlive();
    this.#settled = true;
    this.#released = this.#settlement === undefined;
    if (this.id === "") {
      return { outcome: "RELEASED", replayed: false };
    }
    return await this.#host.release(this.#held.tenant, this.id, options);
  }

  /** Move the end to `ttlMs` from now, by default as long as it was reserved for. */
  async extend(ttlMs = this.#held.ttlMs, options: CallOptions = {}): Promise<Extended> {
    if (this.id === "") {
      return { outcome: "EXTENDED", expiresAt: undefined };
    }
    const extended = await this.#host.extend(this.#held.tenant, this.id, ttlMs, options);
    this.expiresAt = extended.expiresAt ?? this.expiresAt;
    return extended;
  }

  /** Extend three times per `ttlMs` until it is settled. It does not keep the process. */
  keepAlive(): void {
    if (this.id === "" || this.#settled || this.#heartbeat !== undefined) {
      return;
    }
    const beat = async () => {
      try {
        const { outcome } = await this.extend();
        if (outcome !== "EXTENDED") {
          this.stopKeepAlive();
        }
      } catch {
        // Counted by the client. The next beat comes before the end.
      }
    };
    this.#heartbeat = setInterval(() => void beat(), Math.max(1, this.#held.ttlMs / 3)).unref();
  }

  /** End what `keepAlive` began. */
  stopKeepAlive(): void {
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }

  /** Release what was not settled: `await using` gives back what an error has left behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.allowed && !this.#settled) {
      await this.release();
    }
  }

  #indexOf(meter: string): number {
    const index = this.#held.items.findIndex((item) => item.meter === meter);
    if (index < 0) {
      throw new TypeError(`${JSON.stringify(meter)} is no meter of this reservation`);
    }
    return index;
  }

  #amounts(): number[] {
    return this.#held.items.map((item, index) => this.#used[index] ?? item.amount);
  }

  /** Ask for it; what comes of it where there is nothing to settle any more is recorded. */
  async #commit(amounts: number[], options: CommitOptions): Promise<Settlement> {
    const operationId = options.operationId || commitIdOf(this.id);
    const request: CommitRequest = {
      tenantId: this.#held.tenant,
      reservationId: this.id,
      amounts,
      operationId,
      excess: options.excess === "ask" ? Excess.EXCESS_ASK : Excess.EXCESS_RECORD,
    };
    let gone: Settlement;
    try {
      const reply = await this.#host.commit(request, options);
      gone = settlementOf(reply, operationId);
      if (!isGone(reply.outcome)) {
        return gone;
      }
    } catch (error) {
      if (isNoAnswer(error) && this.#host.buffer !== undefined) {
        this.#host.buffer.commit(request, this.#events(operationId, amounts));
        return noReply("BUFFERED", operationId, []);
      }
      if (!(error instanceof NotFoundError)) {
        throw error;
      }
      gone = noReply(outcomeOf(ReservationOutcome.RESERVATION_OUTCOME_EXPIRED), operationId, []);
    }
    return await this.#recordAfter(gone, amounts, options);
  }

  /** The reservation is gone, but the work was done. */
  async #recordAfter(
    gone: Settlement,
    amounts: number[],
    options: CallOptions,
  ): Promise<Settlement> {
    const events = this.#events(gone.operationId, amounts);
    const eventIds = events.map((event) => event.eventId);
    if (events.length === 0 || this.#released) {
      return gone;
    }
    if (this.#host.buffer !== undefined) {
      this.#host.buffer.recordAll(events);
    } else {
      const { results } = await this.#host.record(events, gone.operationId, options);
      for (const { error } of results) {
        if (error !== undefined) {
          throw fromItem(error, gone.operationId);
        }
      }
    }
    return { ...gone, eventIds, recordedAfter: true };
  }

  /** What `onAbsent: "open"` let pass: recorded by the buffer, where there is one. */
  #recordLocally(amounts: number[]): Settlement {
    const { operationId } = this.decision;
    const events = this.#host.buffer === undefined ? [] : this.#events(operationId, amounts, true);
    this.#host.buffer?.recordAll(events);
    const eventIds = events.map((event) => event.eventId);
    return noReply("BUFFERED", operationId, eventIds);
  }

  /**
   * The events that the service's commit would have made: an item's by its index, and what goes
   * beyond the reservation by the numbers that follow. Of a local reservation, an item is one.
   */
  #events(operationId: string, amounts: readonly number[], whole = false): RecordUsageRequest[] {
    const { items } = this.#held;
    const covered = (item: ItemMessage, amount: number) =>
      whole ? amount : Math.min(amount, item.amount);
    const part = (index: number, of: (item: ItemMessage, amount: number) => number) =>
      items.map((item, at) =>
        this.#event(`${operationId}:${index + at}`, item, of(item, amounts[at] ?? 0)),
      );
    return [
      ...part(0, covered),
      ...part(items.length, (item, amount) => amount - covered(item, amount)),
    ].filter((event) => event.amount > 0);
  }

  #event(eventId: string, item: ItemMessage, amount: number): RecordUsageRequest {
    return {
      tenantId: this.#held.tenant,
      meter: item.meter,
      amount,
      eventId,
      operationId: eventId,
      eventTime: timestamp(new Date()),
      dimensions: item.dimensions,
      context: this.#held.context,
      metadata: undefined,
      minDurability: Durability.DURABILITY_UNSPECIFIED,
    };
  }
}

/** Return the id of a reservation's commit, as the service makes it. @internal */
export function commitIdOf(reservationId: string): string {
  return `${reservationId.slice(-RESERVATION_IN_ID)}#c`;
}

/** Return the id of a reservation's release, as the service makes it. @internal */
export function releaseIdOf(reservationId: string): string {
  return `${reservationId.slice(-RESERVATION_IN_ID)}#r`;
}

function noReply(
  outcome: Settlement["outcome"],
  operationId: string,
  eventIds: readonly string[],
): Settlement {
  return {
    outcome,
    limits: [],
    refusedBy: undefined,
    unrecorded: [],
    replayed: false,
    durability: "UNSPECIFIED",
    eventIds,
    recordedAfter: false,
    operationId,
  };
}
