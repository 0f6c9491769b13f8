/**
 * What a client is answered where the app is not asked: problem details (RFC 9457).
 *
 * Guarantees that nothing of the tenant, of other tenants and of the inside is told. Refuses to know
 * how an answer is sent.
 */

import {
  ClosedError,
  DeadlineExceededError,
  InvalidRequestError,
  QuotaExceededError,
  ResourceExhaustedError,
  TallygateError,
  UnavailableError,
} from "../errors.js";
import type { Decision } from "../results.js";
import { retryAfterOf } from "./fields.js";

const QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const OURS = "urn:tallygate:problem:";
const ABSENT = [UnavailableError, DeadlineExceededError, ClosedError, ResourceExhaustedError];
const NOT_SERVED = ["UNKNOWN_TENANT", "TENANT_SUSPENDED"];

/** The request names nobody who pays. @internal */
export class TenantMissing extends Error {}

/** What is wrong, as told to the client. */
export interface Problem {
  /** The members of the body. */
  readonly members: {
    readonly type: string;
    readonly title: string;
    readonly status: number;
    readonly detail: string;
    readonly [member: string]: unknown;
  };
  /** In whole seconds; undefined where waiting does not help. */
  readonly retryAfter: number | undefined;
  /** The refusal, where there is one. */
  readonly decision: Decision | undefined;
  /** Whether it is the app's operator who has to mend it. */
  readonly internal: boolean;
}

/** Say what an error means to the client. @internal */
export function problemOf(error: unknown, challenged: boolean): Problem {
  if (error instanceof TenantMissing) {
    const detail = "The request names no tenant.";
    const status = challenged ? 401 : 400;
    return problem(status, `${OURS}tenant-missing`, "Nobody is named who pays", detail);
  }
  if (error instanceof QuotaExceededError) {
    return exceeded(error.decision);
  }
  const known = error instanceof TallygateError ? error : undefined;
  if (ABSENT.some((each) => error instanceof each)) {
    const title = "Usage cannot be metered at the moment";
    const detail = "The request was not served. Try again later.";
    const retryAfter = Math.max(1, Math.ceil((known?.retryAfterMs ?? 0) / 1000));
    const made = problem(503, `${OURS}metering-unavailable`, title, detail, known?.operationId);
    return { ...made, retryAfter };
  }
  if (error instanceof InvalidRequestError && error.field === "tenant_id") {
    const detail = "The name of the tenant is not well formed.";
    return problem(400, `${OURS}tenant-invalid`, "Not the name of a tenant", detail);
  }
  if (known !== undefined && NOT_SERVED.includes(known.reason)) {
    const detail = "The tenant is not known, or is suspended.";
    return problem(403, `${OURS}tenant-refused`, "The tenant is not served", detail);
  }
  const title = "Usage could not be metered";
  const detail = "The request was not served.";
  const made = problem(500, `${OURS}metering-failed`, title, detail, known?.operationId);
  return { ...made, internal: true };
}

function exceeded(decision: Decision): Problem {
  const retryAfter = retryAfterOf(decision);
  const meter = decision.limits.find((limit) => limit.limitId === decision.refusedBy)?.meter;
  const of = meter === undefined ? "" : ` of ${meter}`;
  const when = retryAfter === undefined ? "It cannot pass." : `Try again in ${retryAfter} s.`;
  const title = "Request cannot be satisfied as assigned quota has been exceeded";
  const detail = `The limit ${decision.refusedBy}${of} is reached. ${when}`;
  const made = problem(429, QUOTA_EXCEEDED, title, detail, decision.operationId);
  const members = { ...made.members, "violated-policies": [decision.refusedBy] };
  return { ...made, members, retryAfter, decision };
}

function problem(
  status: number,
  type: string,
  title: string,
  detail: string,
  operationId = "",
): Problem {
  const named = operationId === "" ? {} : { operation_id: operationId };
  return {
    members: { type, title, status, detail, ...named },
    retryAfter: undefined,
    decision: undefined,
    internal: false,
  };
}
