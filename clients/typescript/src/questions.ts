/**
 * What the client's methods are asked.
 *
 * Guarantees that what may be left out is optional, with its default said. Refuses to know how it is
 * sent.
 */

import type { CallOptions } from "./options.js";
import type { ConsumeRequest } from "./requests.js";
import type { ExcessPolicy } from "./reservation.js";

/** A charge to try without charging. */
export type CheckRequest = Omit<ConsumeRequest, "operationId" | "minDurability">;

/** Units to hold. */
export interface ReserveRequest extends Omit<ConsumeRequest, "minDurability"> {
  /** After this long they come back by themselves; 1 ms to 24 h, by default 60,000. */
  readonly ttlMs?: number | undefined;
}

/** Which limits to read. */
export interface QuotaRequest {
  readonly tenant: string;
  /** Only the limits of these meters. */
  readonly meters?: readonly string[] | undefined;
  /** For limits per dimension: whose counters. */
  readonly dimensions?: Readonly<Record<string, string>> | undefined;
}

/** A reservation by its id, for those who did not make it. */
export interface ReservationRequest {
  readonly tenant: string;
  readonly reservationId: string;
}

/** What a reservation came to. */
export interface CommitRequest extends ReservationRequest {
  /** Per item; none means what was reserved. */
  readonly amounts?: readonly number[] | undefined;
  readonly operationId?: string | undefined;
  /** By default `ask`. */
  readonly excess?: ExcessPolicy | undefined;
}

/** What to take back. */
export interface RefundRequest {
  readonly tenant: string;
  readonly eventId: string;
  /** All that is left of the event, unless set. */
  readonly amount?: number | undefined;
  readonly operationId?: string | undefined;
  /** Why, for people. */
  readonly reason?: string | undefined;
}

/** How a reservation's work is to be carried out. */
export interface WorkOptions extends CallOptions {
  /** By default `record`: the work is done when it is settled. */
  readonly excess?: ExcessPolicy | undefined;
}
