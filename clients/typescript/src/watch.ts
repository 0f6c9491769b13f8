/** Watches, and how they are opened anew. */

import { setTimeout as delay } from "node:timers/promises";
import { CancelledError, UnavailableError } from "./errors.js";
import type { WatchQuotaResponse } from "./proto.js";
import { causeOf, limitOf, type QuotaChange } from "./results.js";

/** Half of it at least, so that those who lost one service do not come back at one moment. */
const REOPEN_MS = 1000;

/** How to watch. */
export interface WatchOptions {
  /** Ends the watch with `CancelledError`. */
  readonly signal?: AbortSignal;
  /**
   * Open it anew when the service stops or can no longer read the counters, in place of throwing
   * `UnavailableError`. Until then nothing comes: who shows figures shows old ones meanwhile.
   */
  readonly reconnect?: boolean;
}

/** Yield what each stream in turn tells. @internal */
export async function* watch(
  options: WatchOptions,
  open: () => AsyncGenerator<WatchQuotaResponse>,
): AsyncGenerator<QuotaChange> {
  for (;;) {
    let waitMs = REOPEN_MS * (0.5 + Math.random() / 2);
    try {
      for await (const { limits, cause, plan, catalogVersion } of open()) {
        yield { limits: limits.map(limitOf), cause: causeOf(cause), plan, catalogVersion };
      }
    } catch (error) {
      if (!options.reconnect || !(error instanceof UnavailableError)) {
        throw error;
      }
      waitMs = error.retryAfterMs ?? waitMs;
    }
    if (!options.reconnect) {
      return;
    }
    try {
      await delay(waitMs, undefined, options.signal ? { signal: options.signal } : {});
    } catch {
      throw new CancelledError("", options.signal?.reason);
    }
  }
}
