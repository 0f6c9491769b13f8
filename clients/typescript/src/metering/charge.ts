/**
 * One request's charge: what it is to cost, and how it is settled, once.
 *
 * Guarantees that a reservation is committed or released, and a charge in mode `consume` stands or
 * is refunded, exactly once, whichever end comes first. Refuses to know HTTP.
 */

import type { Client } from "../client.js";
import type { Reservation } from "../reservation.js";
import type { Decision } from "../results.js";

/** Ids end at 128 characters; what is cut off is what all of one app share. */
const ID_MAX = 128;

/** A granted request, at hand while the app serves it. */
export abstract class Charge {
  #cancelled = false;
  #settled = false;

  abstract readonly decision: Decision;

  /** The logical call's id. */
  get operationId(): string {
    return this.decision.operationId;
  }

  /** Say what a meter came to, in place of the estimate; the last one counts. */
  abstract set(meter: string, amount: number): void;

  /** Add to what a meter came to, from 0. */
  abstract add(meter: string, amount: number): void;

  /** Charge nothing, whatever the response's status. */
  cancel(): void {
    this.#cancelled = true;
  }

  /** Settle it, unless that has been done. @internal */
  async settle(charged: boolean): Promise<void> {
    if (this.#settled) {
      return;
    }
    this.#settled = true;
    if (charged && !this.#cancelled) {
      await this.keep();
    } else {
      await this.giveBack();
    }
  }

  protected abstract keep(): Promise<void>;
  protected abstract giveBack(): Promise<void>;
}

/** A charge that is held until the request's end. @internal */
export class HeldCharge extends Charge {
  readonly #reservation: Reservation;

  constructor(reservation: Reservation) {
    super();
    this.#reservation = reservation;
    reservation.keepAlive();
  }

  get decision(): Decision {
    return this.#reservation.decision;
  }

  set(meter: string, amount: number): void {
    this.#reservation.set(meter, amount);
  }

  add(meter: string, amount: number): void {
    this.#reservation.add(meter, amount);
  }

  protected async keep(): Promise<void> {
    await this.#reservation.commit({ excess: "record" });
  }

  protected async giveBack(): Promise<void> {
    await this.#reservation.release();
  }
}

/** A charge that was made before, and is given back where the request fails. @internal */
export class MadeCharge extends Charge {
  readonly decision: Decision;
  readonly #client: Client;
  readonly #tenant: string;
  readonly #refundFailures: boolean;

  constructor(client: Client, tenant: string, decision: Decision, refundFailures: boolean) {
    super();
    this.decision = decision;
    this.#client = client;
    this.#tenant = tenant;
    this.#refundFailures = refundFailures;
  }

  set(): void {
    throw new TypeError('the cost is fixed in mode "consume"');
  }

  add(): void {
    this.set();
  }

  protected async keep(): Promise<void> {
    // It stands as it was made.
  }

  protected async giveBack(): Promise<void> {
    if (!this.#refundFailures || this.decision.local) {
      return;
    }
    const tenant = this.#tenant;
    await Promise.all(
      this.decision.eventIds.map((eventId, index) => {
        const operationId = `${this.operationId}:refund:${index}`.slice(-ID_MAX);
        return this.#client.refund({ tenant, eventId, operationId });
      }),
    );
  }
}
