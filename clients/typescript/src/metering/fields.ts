/**
 * The header fields that tell where a tenant stands: `RateLimit` and `RateLimit-Policy`.
 *
 * Structured fields (RFC 9651) as draft-ietf-httpapi-ratelimit-headers-11 has them. Guarantees that
 * what is written can be parsed, whatever a limit is called. Refuses to know requests.
 */

import type { Decision, LimitStatus } from "../results.js";

/** The largest integer of a structured field. */
const INTEGER_MAX = 999_999_999_999_999;
/** More would cost more bytes than they tell. */
const LIMITS_MAX = 10;

/** What the app knows of its limits beside what the service says. */
export interface FieldOptions {
  /** By meter: its unit, as `content-bytes`. */
  readonly quotaUnits?: Readonly<Record<string, string>> | undefined;
  /** By limit id: the window in seconds. */
  readonly windows?: Readonly<Record<string, number>> | undefined;
}

/** Return whole seconds until the same could pass; undefined when it never can. @internal */
export function retryAfterOf(decision: Decision): number | undefined {
  const { retryAfterMs } = decision;
  return retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
}

/** Return the fields of a decision; none where it shows no limit. @internal */
export function fieldsOf(
  decision: Decision,
  options: FieldOptions,
  now = Date.now(),
): [name: string, value: string][] {
  const shown = shownOf(decision);
  if (shown.length === 0) {
    return [];
  }
  const standing = (limit: LimitStatus) => standingOf(limit, decision, now);
  return [
    ["RateLimit-Policy", shown.map((limit) => policyOf(limit, options)).join(",")],
    ["RateLimit", shown.map(standing).join(",")],
  ];
}

/** Bounded limits in force, the refusing one first, each name once with the least that is left. */
function shownOf(decision: Decision): LimitStatus[] {
  const tightest = new Map<string, LimitStatus>();
  for (const limit of decision.limits) {
    const name = `${limit.limitId}\n${limit.scope}`;
    const before = tightest.get(name);
    const counts = !limit.unlimited && limit.state !== "SHADOW_EXCEEDED";
    if (counts && (before === undefined || limit.remaining < before.remaining)) {
      tightest.set(name, limit);
    }
  }
  const isRefusing = (limit: LimitStatus) => (limit.limitId === decision.refusedBy ? 0 : 1);
  return [...tightest.values()]
    .sort((one, other) => isRefusing(one) - isRefusing(other))
    .slice(0, LIMITS_MAX);
}

function policyOf(limit: LimitStatus, { quotaUnits, windows }: FieldOptions): string {
  const unit = quotaUnits?.[limit.meter];
  const window = windows?.[limit.limitId];
  return [
    string(limit.limitId),
    `q=${integer(limit.limit)}`,
    ...(unit === undefined ? [] : [`qu=${string(unit)}`]),
    ...(window === undefined ? [] : [`w=${integer(window)}`]),
    ...partition(limit),
  ].join(";");
}

function standingOf(limit: LimitStatus, decision: Decision, now: number): string {
  const resets = limit.resetsAt && Math.ceil((limit.resetsAt.getTime() - now) / 1000);
  const refused = limit.limitId === decision.refusedBy ? retryAfterOf(decision) : undefined;
  const wait = refused ?? resets;
  return [
    string(limit.limitId),
    `r=${integer(limit.remaining)}`,
    ...(wait === undefined ? [] : [`t=${integer(wait)}`]),
    ...partition(limit),
  ].join(";");
}

function partition({ scope }: LimitStatus): string[] {
  return scope === "" ? [] : [`pk=:${Buffer.from(scope).toString("base64")}:`];
}

function string(text: string): string {
  const kept = Array.from(text, (each) => (each >= " " && each <= "~" ? each : "?")).join("");
  return `"${kept.replace(/[\\"]/g, "\\$&")}"`;
}

function integer(value: number): number {
  return Math.min(Math.max(Math.trunc(value), 0), INTEGER_MAX);
}
