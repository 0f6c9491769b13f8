/**
 * One request of the buffer at a time, and what becomes of the entries in it.
 *
 * Guarantees that each entry sent is done, rejected, to be sent later, or that the whole request is
 * to be sent again. Refuses to know when.
 */

import { type CommitEntry, type Entry, encodeBatch, type UsageEntry } from "./buffer-entry.js";
import {
  CancelledError,
  ClosedError,
  fromItem,
  InternalError,
  InvalidRequestError,
  isNoAnswer,
  PermissionDeniedError,
  ResourceExhaustedError,
  TallygateError,
  UnauthenticatedError,
} from "./errors.js";
import {
  BatchRecordUsageRequest,
  QuotaServiceService as quota,
  ReservationOutcome,
  UsageServiceService as usage,
} from "./proto.js";
import type { Transport } from "./transport.js";

/** Well below the 4 MiB that a message may have. */
const BATCH_BYTES = 1 << 20;
/** Longer than a call that somebody waits for: large lists are synced to the sidecar's disk. */
const REQUEST_TIMEOUT_MS = 5000;

/** Told what has become of entries. @internal */
export interface Fate {
  done(entry: Entry, replayed: boolean): void;
  reject(entry: Entry, error: TallygateError): void;
  /** Not now, but its neighbours may be. */
  later(entry: Entry): void;
}

/** Sends entries. @internal */
export class Sender {
  readonly #transport: Transport;
  readonly #fate: Fate;
  readonly #batch: number;
  readonly #signal: AbortSignal;

  constructor(transport: Transport, fate: Fate, batch: number, signal: AbortSignal) {
    this.#transport = transport;
    this.#fate = fate;
    this.#batch = batch;
    this.#signal = signal;
  }

  /** Send the first entries; return the error after which the same is to be sent again. */
  async send(waiting: Iterable<Entry>): Promise<TallygateError | undefined> {
    const [first] = waiting;
    if (first?.kind === "commit") {
      return await this.#settle(first);
    }
    const batch: UsageEntry[] = [];
    let bytes = 0;
    for (const entry of waiting) {
      if (entry.kind !== "usage" || batch.length >= this.#batch) {
        break;
      }
      bytes += entry.encoded.length;
      if (bytes > BATCH_BYTES && batch.length > 0) {
        break;
      }
      batch.push(entry);
    }
    return await this.#record(batch);
  }

  async #record(batch: UsageEntry[]): Promise<TallygateError | undefined> {
    try {
      const encoded = encodeBatch(batch);
      const { results } = await this.#transport.send(
        usage.batchRecordUsage,
        encoded,
        this.#attempt(),
      );
      let again: TallygateError | undefined;
      for (const [index, entry] of batch.entries()) {
        const { response, error } = results[index] ?? {};
        if (response !== undefined) {
          this.#fate.done(entry, response.replayed);
        } else if (error !== undefined) {
          const told = fromItem(error, entry.id);
          if (isNoAnswer(told) || told.retryAfterMs !== undefined) {
            again = told;
            this.#fate.later(entry);
          } else {
            this.#fate.reject(entry, told);
          }
        } else {
          again = new InternalError("a list was answered in part", { code: "INTERNAL" });
        }
      }
      return again;
    } catch (error) {
      const told = error as TallygateError;
      // What a caller may not do for a tenant is told item by item: a list that is refused whole
      // is refused for its caller, and a wrong certificate must not empty a buffer.
      if (isAgain(told) || told instanceof PermissionDeniedError) {
        return told;
      }
      if (batch.length > 1 && isContent(told)) {
        // One of them is why all were refused: find it.
        const half = batch.length >> 1;
        const first = await this.#record(batch.slice(0, half));
        return (await this.#record(batch.slice(half))) ?? first;
      }
      for (const entry of batch) {
        this.#fate.reject(entry, told);
      }
      return undefined;
    }
  }

  async #settle(entry: CommitEntry): Promise<TallygateError | undefined> {
    try {
      const reply = await this.#transport.send(quota.commit, entry.encoded, this.#attempt());
      if (!isGone(reply.outcome)) {
        this.#fate.done(entry, reply.replayed);
        return undefined;
      }
    } catch (error) {
      const told = error as TallygateError;
      if (isAgain(told)) {
        return told;
      }
      if (told.code !== "NOT_FOUND" || entry.fallback.length === 0) {
        this.#fate.reject(entry, told);
        return undefined;
      }
    }
    return await this.#fallBack(entry);
  }

  /** The reservation is gone: record what was used, under the ids that the commit would have made. */
  async #fallBack(entry: CommitEntry): Promise<TallygateError | undefined> {
    try {
      const { results } = await this.#transport.send(
        usage.batchRecordUsage,
        Buffer.from(BatchRecordUsageRequest.encode({ requests: [...entry.fallback] }).finish()),
        this.#attempt(),
      );
      for (const { error } of results) {
        const told = error && fromItem(error, entry.id);
        if (told && (isNoAnswer(told) || told.retryAfterMs !== undefined)) {
          return told;
        }
        if (told) {
          this.#fate.reject(entry, told);
          return undefined;
        }
      }
    } catch (error) {
      const told = error as TallygateError;
      if (isAgain(told)) {
        return told;
      }
      this.#fate.reject(entry, told);
      return undefined;
    }
    this.#fate.done(entry, false);
    return undefined;
  }

  #attempt() {
    return { timeoutMs: REQUEST_TIMEOUT_MS, operationId: "", signal: this.#signal };
  }
}

/**
 * Say whether the same is to be sent again: no answer came, who calls is not known, something
 * between has failed (its errors have no reason), or the buffer has ended. What is no error of a
 * call (a disk that fails under the spool) says nothing against the entry either.
 */
function isAgain(error: unknown): boolean {
  if (!(error instanceof TallygateError)) {
    return true;
  }
  return (
    isNoAnswer(error) ||
    error instanceof UnauthenticatedError ||
    (error instanceof InternalError && !error.reason) ||
    error instanceof CancelledError ||
    error instanceof ClosedError
  );
}

/** Say whether a request may have been refused for what one of its events holds. */
function isContent(error: TallygateError): boolean {
  return error instanceof InvalidRequestError || error instanceof ResourceExhaustedError;
}

/** Say whether a commit has found its reservation's units given back. @internal */
export function isGone(outcome: ReservationOutcome): boolean {
  return (
    outcome === ReservationOutcome.RESERVATION_OUTCOME_EXPIRED ||
    outcome === ReservationOutcome.RESERVATION_OUTCOME_ALREADY_RELEASED
  );
}
