/** What a client has counted since it was made. */

import type { OnAbsent } from "./options.js";

/** A client's counters, and what its buffer holds now. */
export interface Stats {
  /** Logical calls, however often they were tried. */
  readonly calls: number;
  /** Calls that ended with an error, those that the local policy then let pass included. */
  readonly errors: number;
  /** Calls without an answer that were let pass. */
  readonly localOpen: number;
  /** Calls without an answer that were refused. */
  readonly localClosed: number;
  /** Both by method. */
  readonly localByMethod: Readonly<Record<string, Readonly<Record<OnAbsent, number>>>>;
  /** Entries that the buffer accepted. */
  readonly recorded: number;
  /** Entries that were acknowledged. */
  readonly sent: number;
  /** Entries of those that the service knew already. */
  readonly replayed: number;
  /** Entries that the service refused for good. */
  readonly rejected: number;
  /** Entries that did not fit, and were refused by `BufferFullError`. */
  readonly refusedFull: number;
  /** Requests of the buffer that had to be sent again. */
  readonly retries: number;
  /** Entries that wait. */
  readonly pending: number;
  readonly spoolBytes: number;
  /** Spool files whose end could not be read. */
  readonly spoolTorn: number;
}

/** The counters, as they are written. @internal */
export class Counters {
  calls = 0;
  errors = 0;
  localOpen = 0;
  localClosed = 0;
  localByMethod: Record<string, Record<OnAbsent, number>> = {};
  recorded = 0;
  sent = 0;
  replayed = 0;
  rejected = 0;
  refusedFull = 0;
  retries = 0;

  local(method: string, policy: OnAbsent): void {
    this.localByMethod[method] ??= { open: 0, closed: 0 };
    this.localByMethod[method][policy] += 1;
    if (policy === "open") {
      this.localOpen += 1;
    } else {
      this.localClosed += 1;
    }
  }

  snapshot(now: { pending: number; spoolBytes: number; spoolTorn: number }): Stats {
    return Object.assign({}, this, { localByMethod: structuredClone(this.localByMethod), ...now });
  }
}
