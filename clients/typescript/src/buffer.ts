/**
 * record() ─▶ [ buffer ] ─▶ sidecar: usage is accepted at once and sent soon, by one request at a
 * time, through outages, and with a spool through restarts.
 *
 * Guarantees that nothing accepted is dropped unseen: an entry is acknowledged, told to
 * `onRejected`, still waiting, or in the spool. Ids are set when it is accepted, so that however
 * often it is sent it counts once. Refuses to know who records.
 */

import {
  commitEntry,
  type Entry,
  entryOf,
  payloadOf,
  rejectedOf,
  usageEntry,
} from "./buffer-entry.js";
import { Sender } from "./buffer-sender.js";
import { BufferFullError, ClosedError, type TallygateError } from "./errors.js";
import { type BufferOptions, type Hooks, tell } from "./options.js";
import type { CommitRequest, RecordUsageRequest } from "./proto.js";
import { type Usage, usageMessage } from "./requests.js";
import { Spool } from "./spool.js";
import type { Counters } from "./stats.js";
import type { Transport } from "./transport.js";

const MAX_EVENTS = 10_000;
const BATCH = 500;
const BATCH_MAX = 1000;
const FLUSH_MS = 100;
const SPOOL_SYNC_MS = 100;
const SPOOL_MAX_BYTES = 64 << 20;
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5000;

/** What the buffer needs of its client. @internal */
export interface BufferHost {
  readonly transport: Transport;
  readonly counters: Counters;
  readonly hooks: Hooks;
}

/** Records usage without waiting. A client has one when its `buffer` option is set. */
export class UsageBuffer {
  readonly #host: BufferHost;
  readonly #maxEvents: number;
  readonly #batch: number;
  readonly #sender: Sender;
  readonly #flushMs: number;
  readonly #spool: Spool | undefined;
  readonly #waiting = new Set<Entry>();
  readonly #idle = new Set<() => void>();
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  /** Neither a record nor a flush may send before this time. */
  #notBefore = 0;
  #failures = 0;
  #busy = false;
  #closed = false;

  /** @internal */
  constructor(host: BufferHost, options: BufferOptions) {
    this.#host = host;
    this.#maxEvents = options.maxEvents ?? MAX_EVENTS;
    this.#batch = Math.min(options.batch ?? BATCH, BATCH_MAX);
    this.#flushMs = options.flushMs ?? FLUSH_MS;
    const fate = {
      done: (entry: Entry, replayed: boolean) => this.#done(entry, replayed),
      reject: (entry: Entry, error: TallygateError) => this.#reject(entry, error),
      later: (entry: Entry) => {
        // Behind the others, so that they get their turn.
        this.#waiting.delete(entry);
        this.#waiting.add(entry);
      },
    };
    this.#sender = new Sender(host.transport, fate, this.#batch, this.#stop.signal);
    if (options.spoolDir !== undefined) {
      this.#spool = new Spool(options.spoolDir, {
        syncMs: options.spoolSyncMs ?? SPOOL_SYNC_MS,
        maxBytes: options.spoolMaxBytes ?? SPOOL_MAX_BYTES,
      });
      this.#takeUp(this.#spool);
    }
  }

  /** How many entries wait. */
  get pending(): number {
    return this.#waiting.size;
  }

  /** @internal */
  get spooled(): { spoolBytes: number; spoolTorn: number } {
    return { spoolBytes: this.#spool?.bytes ?? 0, spoolTorn: this.#spool?.torn ?? 0 };
  }

  /**
   * Accept an event, and return its id at once. With a spool it is on disk by then.
   *
   * Throws `BufferFullError` when the buffer holds as much as it may, `InvalidRequestError` for
   * what no message could carry, `ClosedError` after the client's end.
   */
  record(event: Usage): string {
    // Its time is set here, so that it stays its own while it waits.
    const message = usageMessage({ ...event, eventTime: event.eventTime ?? new Date() });
    this.accept(usageEntry(message));
    return message.eventId;
  }

  /** Accept events that have their ids already, so that a repeat after an error counts once. @internal */
  recordAll(messages: readonly RecordUsageRequest[]): void {
    this.#refuseClosed();
    this.#refuseFull(messages.length);
    for (const message of messages) {
      this.accept(usageEntry(message));
    }
  }

  /** Accept a commit, with the events to record should its reservation be gone. @internal */
  commit(request: CommitRequest, fallback: RecordUsageRequest[]): void {
    this.accept(commitEntry(request, fallback));
  }

  /**
   * Send what was accepted until now, and say whether all of it is acknowledged or rejected.
   *
   * Waits `timeoutMs` at most; what is left then stays, and goes on being sent.
   */
  async flush(timeoutMs = 5000): Promise<boolean> {
    const wanted = new Set(this.#waiting);
    const done = () => {
      for (const entry of wanted) {
        if (this.#waiting.has(entry)) {
          return false;
        }
        wanted.delete(entry);
      }
      return true;
    };
    if (done()) {
      return true;
    }
    this.#schedule(0);
    return await new Promise<boolean>((resolve) => {
      const look = () => {
        if (done()) {
          end(true);
        } else if (this.#closed) {
          end(false);
        }
      };
      const end = (all: boolean) => {
        clearTimeout(timer);
        this.#idle.delete(look);
        resolve(all);
      };
      const timer = setTimeout(() => end(false), timeoutMs);
      this.#idle.add(look);
    });
  }

  /** Flush, then end; say whether all is sent. What a spool holds is sent by the next. @internal */
  async close(timeoutMs: number): Promise<boolean> {
    if (this.#closed) {
      return this.#waiting.size === 0;
    }
    const all = await this.flush(timeoutMs);
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stop.abort();
    this.#looked();
    this.#spool?.close();
    return all && this.#waiting.size === 0;
  }

  /** @internal */
  accept(entry: Entry): void {
    this.#refuseClosed();
    this.#refuseFull(1);
    if (this.#spool !== undefined) {
      const [kind, payload] = payloadOf(entry);
      try {
        entry.segment = this.#spool.append(kind, payload);
      } catch (error) {
        this.#host.counters.refusedFull += error instanceof BufferFullError ? 1 : 0;
        throw error;
      }
    }
    this.#waiting.add(entry);
    this.#host.counters.recorded += 1;
    tell(this.#host.hooks.onBuffer, this.#waiting.size);
    this.#schedule(this.#waiting.size >= this.#batch ? 0 : this.#flushMs);
  }

  #refuseClosed(): void {
    if (this.#closed) {
      throw new ClosedError();
    }
  }

  #refuseFull(more: number): void {
    if (this.#waiting.size + more > this.#maxEvents) {
      this.#host.counters.refusedFull += more;
      throw new BufferFullError(`the buffer holds ${this.#waiting.size} events`);
    }
  }

  #takeUp(spool: Spool): void {
    for (const { kind, payload, segment } of spool.left.splice(0)) {
      const entry = entryOf(kind, payload);
      if (entry === undefined) {
        spool.torn += 1;
        spool.done(segment);
        continue;
      }
      entry.segment = segment;
      this.#waiting.add(entry);
    }
    if (this.#waiting.size > 0) {
      this.#schedule(0);
    }
  }

  /** Have a request sent in a while; a nearer time than before counts, but no pushback is passed. */
  #schedule(inMs: number): void {
    if (this.#busy || this.#closed || (this.#timer !== undefined && inMs > 0)) {
      return;
    }
    clearTimeout(this.#timer);
    const wait = Math.max(inMs, this.#notBefore - Date.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#send();
    }, wait);
    if (this.#spool !== undefined) {
      // What is on disk need not keep the process: the next one sends it.
      this.#timer.unref();
    }
  }

  async #send(): Promise<void> {
    this.#busy = true;
    let waitMs = 0;
    try {
      while (this.#waiting.size > 0 && waitMs === 0 && !this.#closed) {
        const again = await this.#sender.send(this.#waiting);
        if (again === undefined) {
          this.#failures = 0;
        } else {
          waitMs = this.#backOff(again);
        }
        this.#looked();
      }
    } finally {
      this.#busy = false;
    }
    if (this.#waiting.size > 0) {
      this.#schedule(waitMs || this.#flushMs);
    }
  }

  #backOff(error: TallygateError): number {
    this.#host.counters.retries += 1;
    const most = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#notBefore = Date.now() + (error.retryAfterMs ?? 0);
    return Math.max(1, Math.random() * most, error.retryAfterMs ?? 0);
  }

  #done(entry: Entry, replayed: boolean): void {
    this.#host.counters.sent += 1;
    this.#host.counters.replayed += replayed ? 1 : 0;
    this.#remove(entry);
  }

  #reject(entry: Entry, error: TallygateError): void {
    this.#host.counters.rejected += 1;
    this.#remove(entry);
    tell(this.#host.hooks.onRejected, rejectedOf(entry), error);
  }

  #remove(entry: Entry): void {
    this.#waiting.delete(entry);
    if (entry.segment !== undefined) {
      this.#spool?.done(entry.segment);
    }
  }

  #looked(): void {
    tell(this.#host.hooks.onBuffer, this.#waiting.size);
    for (const look of [...this.#idle]) {
      look();
    }
  }
}
