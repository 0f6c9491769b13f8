/**
 * request ─▶ [ meter ] ─▶ app ─▶ settled: what every middleware does, whatever the framework.
 *
 * Guarantees that a request is served only where it is exempt, costs nothing, or is granted, and
 * that a granted one is settled once its response has ended. Refuses to know frameworks:
 * docs/middleware.md has the rules in words.
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Client } from "../client.js";
import { QuotaExceededError, TallygateError } from "../errors.js";
import { type Context, type Item, type Items, itemsOf } from "../requests.js";
import { type Charge, HeldCharge, MadeCharge } from "./charge.js";
import { type FieldOptions, fieldsOf } from "./fields.js";
import { type Problem, problemOf, TenantMissing } from "./problems.js";
import { watchResponse } from "./response.js";

type Maybe<T> = T | undefined | Promise<T | undefined>;

/** How requests are metered. `R` is the framework's request. */
export interface MeterOptions<R> extends FieldOptions {
  readonly client: Client;
  /**
   * Who pays: a function, or the name of a header that something in front sets and strips. Nobody
   * answers 400, or 401 with a `challenge`.
   */
  readonly tenant: string | ((request: R) => Maybe<string>);
  /** What it costs, or is thought to cost at most. None at all passes unmetered. */
  readonly cost?: Items | ((request: R) => Maybe<Items>) | undefined;
  /** Count the response's bytes on a meter, of which `reserve` are held meanwhile. */
  readonly responseBytes?: { readonly meter: string; readonly reserve: number } | undefined;
  /** Which requests pass unmetered, as health checks. */
  readonly exempt?: ((request: R) => boolean) | undefined;
  /** `reserve` (the default) charges what it came to; `consume` charges before. */
  readonly mode?: "reserve" | "consume" | undefined;
  /** Whether `consume` refunds what failed. By default true. */
  readonly refundFailures?: boolean | undefined;
  /** Which statuses are charged. By default those below 400. */
  readonly charged?: ((status: number) => boolean) | undefined;
  /** How long units are held after the last sign of life. By default 60,000. */
  readonly ttlMs?: number | undefined;
  /** The caller's own id of the call. Never a client's header as it stands: see docs. */
  readonly operationId?: ((request: R) => string | undefined) | undefined;
  readonly context?: ((request: R) => Context) | undefined;
  /** Whether responses carry `RateLimit` fields. By default true. */
  readonly headers?: boolean | undefined;
  /** A `WWW-Authenticate` value, sent with 401 where nobody is named who pays. */
  readonly challenge?: string | undefined;
  /** Writes another body than `application/problem+json`. The headers stay. */
  readonly answer?:
    ((problem: Problem, request: R) => { contentType: string; body: string }) | undefined;
  /** Told what the operator should know: requests not metered, charges not settled. */
  readonly onError?: ((error: unknown, request: R) => void) | undefined;
}

/** A response that is not the app's. @internal */
export interface Answer {
  readonly status: number;
  readonly headers: [name: string, value: string][];
  readonly body: string;
}

/** What is to be done with a request. @internal */
export type Verdict =
  | { readonly kind: "pass" }
  | { readonly kind: "answer"; readonly answer: Answer }
  | { readonly kind: "serve"; readonly charge: Charge };

/** Refuse options that contradict each other, when they are given. @internal */
export function checkOptions<R>(options: MeterOptions<R>): void {
  if (options.mode === "consume" && options.responseBytes !== undefined) {
    throw new TypeError('responseBytes needs mode "reserve": they are known afterwards');
  }
}

/** Decide a request, and watch its response to the end where it is to be served. @internal */
export async function meter<R extends { headers: IncomingMessage["headers"]; method: string }>(
  options: MeterOptions<R>,
  request: R,
  response: ServerResponse,
): Promise<Verdict> {
  try {
    if (options.exempt?.(request)) {
      return { kind: "pass" };
    }
    const tenant = await tenantOf(options, request);
    const items = await costOf(options, request);
    if (items.length === 0) {
      return { kind: "pass" };
    }
    const charge = await ask(options, request, tenant, items);
    follow(options, request, response, charge);
    return { kind: "serve", charge };
  } catch (error) {
    if (!(error instanceof TallygateError || error instanceof TenantMissing)) {
      // The app's own functions: its own error page says so.
      throw error;
    }
    return { kind: "answer", answer: answerOf(options, request, error) };
  }
}

async function tenantOf<R extends { headers: IncomingMessage["headers"] }>(
  { tenant }: MeterOptions<R>,
  request: R,
): Promise<string> {
  const named =
    typeof tenant === "string" ? request.headers[tenant.toLowerCase()] : await tenant(request);
  if (typeof named !== "string" || named === "") {
    throw new TenantMissing();
  }
  return named;
}

async function costOf<R>(options: MeterOptions<R>, request: R): Promise<Item[]> {
  const { cost, responseBytes } = options;
  const items = itemsOf((typeof cost === "function" ? await cost(request) : cost) ?? []);
  return responseBytes === undefined
    ? items
    : [...items, { meter: responseBytes.meter, amount: responseBytes.reserve }];
}

async function ask<R>(
  options: MeterOptions<R>,
  request: R,
  tenant: string,
  items: Item[],
): Promise<Charge> {
  const { client, ttlMs } = options;
  const operationId = options.operationId?.(request);
  const asked = { tenant, items, operationId, context: options.context?.(request) };
  if (options.mode === "consume") {
    const decision = await client.checkAndConsume(asked);
    if (!decision.allowed) {
      throw new QuotaExceededError(decision);
    }
    return new MadeCharge(client, tenant, decision, options.refundFailures ?? true);
  }
  const reservation = await client.reserve({ ...asked, ttlMs });
  if (!reservation.allowed) {
    throw new QuotaExceededError(reservation.decision);
  }
  return new HeldCharge(reservation);
}

function follow<R>(
  options: MeterOptions<R>,
  request: R,
  response: ServerResponse,
  charge: Charge,
): void {
  const isCharged = options.charged ?? ((status: number) => status < 400);
  const { responseBytes } = options;
  watchResponse(response, {
    fields: () => fields(options, charge.decision),
    ended: ({ how, bytes }) => {
      // Who has left got what was sent till then; what the app has broken off is not charged.
      const charged = how !== "failed" && how !== "left-before" && isCharged(response.statusCode);
      try {
        if (responseBytes !== undefined) {
          charge.set(responseBytes.meter, bytes);
        }
      } catch (error) {
        options.onError?.(error, request);
      }
      charge.settle(charged).catch((error: unknown) => options.onError?.(error, request));
    },
  });
}

function fields<R>(options: MeterOptions<R>, decision: Problem["decision"]) {
  if (options.headers === false || decision === undefined) {
    return [];
  }
  const { responseBytes } = options;
  const own = responseBytes === undefined ? {} : { [responseBytes.meter]: "content-bytes" };
  const quotaUnits = { ...own, ...options.quotaUnits };
  return fieldsOf(decision, { quotaUnits, windows: options.windows });
}

function answerOf<R extends { method: string }>(
  options: MeterOptions<R>,
  request: R,
  error: unknown,
): Answer {
  const problem = problemOf(error, options.challenge !== undefined);
  const { status } = problem.members;
  if (problem.internal) {
    options.onError?.(error, request);
  }
  const { contentType, body } = options.answer?.(problem, request) ?? {
    contentType: "application/problem+json",
    body: JSON.stringify(problem.members),
  };
  const headers: Answer["headers"] = [
    ["Content-Type", contentType],
    ["Content-Length", String(Buffer.byteLength(body))],
    ["Cache-Control", "no-store"],
    ...fields(options, problem.decision),
  ];
  if (problem.retryAfter !== undefined) {
    headers.push(["Retry-After", String(problem.retryAfter)]);
  }
  if (status === 401 && options.challenge !== undefined) {
    headers.push(["WWW-Authenticate", options.challenge]);
  }
  return { status, headers, body: request.method === "HEAD" ? "" : body };
}
