/**
 * One logical call each, counted and told, with what is decided where no answer comes.
 *
 * Guarantees that each call is counted once, however often it was tried, and that the local policy
 * decides only where no answer came and the caller has not given up. Refuses to know what messages
 * mean.
 */

import { ClosedError, InvalidRequestError, isNoAnswer, TallygateError } from "./errors.js";
import {
  type CallOptions,
  type ClientOptions,
  type Hooks,
  type OnAbsent,
  tell,
} from "./options.js";
import { Counters } from "./stats.js";
import { type Method, Transport } from "./transport.js";

/** The sidecar is near: what takes longer has failed. */
const TIMEOUT_MS = 1000;

/** A client's way to the service. @internal */
export class Calls {
  readonly counters = new Counters();
  readonly hooks: Hooks;
  readonly transport: Transport;
  readonly #timeoutMs: number;
  readonly #onAbsent: OnAbsent;
  readonly #ended = new Set<() => void>();
  #underWay = 0;
  #closed = false;

  constructor(options: ClientOptions) {
    this.hooks = options.hooks ?? {};
    this.transport = new Transport(options);
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#onAbsent = options.onAbsent ?? "closed";
  }

  /** Make a call of what `build` returns. `operationId` is what its errors name. */
  async make<Q, A>(
    method: Method<Q, A>,
    operationId: string,
    build: () => Q,
    options: CallOptions = {},
  ): Promise<A> {
    const began = performance.now();
    let code: TallygateError["code"] = "OK";
    this.counters.calls += 1;
    this.#underWay += 1;
    try {
      if (this.#closed) {
        throw new ClosedError(operationId);
      }
      return await this.transport.unary(method, build(), {
        timeoutMs: options.timeoutMs ?? this.#timeoutMs,
        signal: options.signal,
        operationId,
      });
    } catch (raised) {
      const error = named(raised, operationId);
      this.counters.errors += 1;
      code = error instanceof TallygateError ? error.code : "UNKNOWN";
      throw error;
    } finally {
      this.#underWay -= 1;
      for (const look of [...this.#ended]) {
        look();
      }
      tell(this.hooks.onCall, nameOf(method), code, (performance.now() - began) / 1000);
    }
  }

  /** Begin no more calls, and wait for those under way, `timeoutMs` at most. */
  async finish(timeoutMs: number): Promise<void> {
    this.#closed = true;
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        const look = () => {
          if (this.#underWay === 0) {
            end();
          }
        };
        const end = () => {
          clearTimeout(timer);
          this.#ended.delete(look);
          resolve();
        };
        const timer = setTimeout(end, timeoutMs);
        this.#ended.add(look);
      });
    }
  }

  /** Decide an error by the local policy: return where it lets pass, else throw the error. */
  decideLocally(method: { readonly path: string }, error: unknown): void {
    if (!isNoAnswer(error)) {
      throw error;
    }
    const name = nameOf(method);
    this.counters.local(name, this.#onAbsent);
    tell(this.hooks.onLocal, name, this.#onAbsent);
    if (this.#onAbsent === "closed") {
      throw error;
    }
  }
}

/** What is refused before it is sent does not know its call. */
function named(error: unknown, operationId: string): unknown {
  if (error instanceof InvalidRequestError && error.operationId === "") {
    const { message, code, reason, field } = error;
    return new InvalidRequestError(message, { code, reason, field, operationId });
  }
  return error;
}

function nameOf(method: { readonly path: string }): string {
  return method.path.slice(method.path.lastIndexOf("/") + 1);
}
