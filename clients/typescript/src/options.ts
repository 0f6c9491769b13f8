/**
 * What callers may set: of a client, of a call, of its buffer and of its hooks.
 *
 * Guarantees a default for each, with the reason for it. Refuses to know how they are used.
 */

import type { ChannelOptions } from "@grpc/grpc-js";
import type { StatusCode, TallygateError } from "./errors.js";

/** What happens when no answer came: refuse by an error, or let pass and count it. */
export type OnAbsent = "closed" | "open";

/** A client's settings. */
export interface ClientOptions {
  /**
   * Where the sidecar is: `unix:///path`, `unix:path` or `host:port`. By default what
   * `TALLYGATE_TARGET` says, else `127.0.0.1:50051`.
   */
  readonly target?: string;
  /** Set for an encrypted connection; without it, it is plain. */
  readonly tls?: TlsOptions;
  /** What `checkAndConsume`, `check` and `reserve` do when no answer came. By default `closed`. */
  readonly onAbsent?: OnAbsent;
  /** For a whole logical call, its retries included. By default 1,000: a sidecar is near. */
  readonly timeoutMs?: number;
  /** Whether calls that end `UNAVAILABLE` are tried again within their time. By default true. */
  readonly retry?: boolean;
  /** Set, or `true`, to record usage without waiting: see `client.buffer`. */
  readonly buffer?: BufferOptions | boolean;
  /** What to be told of. */
  readonly hooks?: Hooks;
  /** Further options of the gRPC channel, for what is not said here. */
  readonly channelOptions?: ChannelOptions;
}

/** An encrypted connection's certificates, as PEM. */
export interface TlsOptions {
  /** The authorities to trust; by default the system's. */
  readonly ca?: string | Buffer;
  /** This client's certificate chain, with `key`. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** The name the sidecar's certificate is held to, where it is not the target's. */
  readonly serverName?: string;
}

/** One call's settings. */
export interface CallOptions {
  /** Ends the call with `CancelledError`. What was charged stays charged. */
  readonly signal?: AbortSignal | undefined;
  /** In place of the client's `timeoutMs`. */
  readonly timeoutMs?: number | undefined;
}

/** What the buffer may hold, and how it sends. */
export interface BufferOptions {
  /** By default 10,000 events, some MB; more is `BufferFullError`. */
  readonly maxEvents?: number;
  /** Events of one request, at most 1,000; by default 500. */
  readonly batch?: number;
  /** How long an event waits for company. By default 100. */
  readonly flushMs?: number;
  /**
   * A folder that holds what is accepted until it is acknowledged, over restarts too. One client
   * of one process each.
   */
  readonly spoolDir?: string;
  /** At most this long until what was written is synced; 0 syncs each. By default 100. */
  readonly spoolSyncMs?: number;
  /** By default 64 MiB; more is `BufferFullError`. */
  readonly spoolMaxBytes?: number;
}

/** What to be told of. What a hook throws is dropped: it never breaks a call. */
export interface Hooks {
  /** After each logical call: the method's name, the code it ended with, how long it took. */
  readonly onCall?: (method: string, code: StatusCode, seconds: number) => void;
  /** When no answer came and the local policy decided. */
  readonly onLocal?: (method: string, policy: OnAbsent) => void;
  /** When the service refused a buffered event for good. */
  readonly onRejected?: (event: RejectedEvent, error: TallygateError) => void;
  /** When the number of entries that wait in the buffer has changed. */
  readonly onBuffer?: (pending: number) => void;
}

/** What the service refused for good. */
export interface RejectedEvent {
  readonly kind: "usage" | "commit";
  readonly tenant: string;
  /** The event's id; of a commit, its operation's. */
  readonly id: string;
  /** Of usage: the meter. */
  readonly meter?: string;
  /** Of usage: the amount. */
  readonly amount?: number;
  /** Of a commit: which reservation it was to settle. */
  readonly reservationId?: string;
}

/** Call a hook, whatever it does. @internal */
export function tell<A extends unknown[]>(
  hook: ((...told: A) => void) | undefined,
  ...told: A
): void {
  try {
    hook?.(...told);
  } catch {
    // Telling must never break what is told of.
  }
}
