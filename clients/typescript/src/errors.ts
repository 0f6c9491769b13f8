/**
 * The errors that callers meet, by what they can do about them.
 *
 * Guarantees that every error of a call names its gRPC code, and the field at fault where the
 * service named one. Refuses to know how calls are made.
 */

import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { type ItemError, Reason } from "./gen/tallygate/v1/reason.js";
import type { Decision } from "./results.js";
import { millis } from "./time.js";

/** The name of a gRPC status code, as `UNAVAILABLE`. */
export type StatusCode = keyof typeof status;

/** What an error says beside its message. */
export interface ErrorDetails {
  readonly code: StatusCode;
  /** Why, as `INVALID_FIELD`; empty where the service did not say. */
  readonly reason?: string;
  /** The field at fault as a path in the protos' names, as `items[0].meter`. */
  readonly field?: string;
  /** When to try again, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** The logical call's id: the same to use when it is made again. */
  readonly operationId?: string;
  readonly cause?: unknown;
}

/** The base of all errors of this package. */
export class TallygateError extends Error {
  /** What the caller can do about it, as a name to switch on: the class's, without `Error`. */
  readonly kind: string = "Tallygate";
  /** The gRPC code that the call ended with, or would have. */
  readonly code: StatusCode;
  /** Why, as `INVALID_FIELD`; empty where the service did not say. */
  readonly reason: string;
  /** The field at fault as a path in the protos' names; empty where no field is. */
  readonly field: string;
  /** When to try again, in milliseconds; undefined where that is not known or of no use. */
  readonly retryAfterMs: number | undefined;
  /** The logical call's id, empty for calls that have none. */
  readonly operationId: string;

  constructor(message: string, details: ErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code;
    this.reason = details.reason ?? "";
    this.field = details.field ?? "";
    this.retryAfterMs = details.retryAfterMs;
    this.operationId = details.operationId ?? "";
  }
}

/** The request is wrong, and would be again. `field` names what is. */
export class InvalidRequestError extends TallygateError {
  override readonly kind = "InvalidRequest";
}

/** No answer came: the sidecar is absent, stopping or overloaded. Worth a retry, same id. */
export class UnavailableError extends TallygateError {
  override readonly kind = "Unavailable";
}

/** The deadline passed before the answer. A retry with the same id gets it, charged once. */
export class DeadlineExceededError extends TallygateError {
  override readonly kind = "DeadlineExceeded";
}

/** The service does not know who calls. */
export class UnauthenticatedError extends TallygateError {
  override readonly kind = "Unauthenticated";
}

/** Who calls may not do this. */
export class PermissionDeniedError extends TallygateError {
  override readonly kind = "PermissionDenied";
}

/** The meter, tenant, reservation or event is not known. */
export class NotFoundError extends TallygateError {
  override readonly kind = "NotFound";
}

/** Not in this state: a suspended tenant, too large a refund, a conflict. */
export class FailedPreconditionError extends TallygateError {
  override readonly kind = "FailedPrecondition";
}

/** A bound of the service is reached that is not a quota, as of reservations or message size. */
export class ResourceExhaustedError extends TallygateError {
  override readonly kind = "ResourceExhausted";
}

/** Something unexpected, on either side. */
export class InternalError extends TallygateError {
  override readonly kind = "Internal";
}

/**
 * The caller's own signal ended the call. `cause` is the signal's reason, and `name` is that of the
 * reason (`AbortError`, `TimeoutError`), as of other cancelled work in Node.
 */
export class CancelledError extends TallygateError {
  override readonly kind = "Cancelled";
  constructor(operationId: string, cause: unknown) {
    super("the call was cancelled by its caller", { code: "CANCELLED", operationId, cause });
    this.name = cause instanceof Error ? cause.name : "AbortError";
  }
}

/** A helper that needs quota was refused it. Calls themselves return refusals as values. */
export class QuotaExceededError extends TallygateError {
  override readonly kind = "QuotaExceeded";
  /** The refusal. */
  readonly decision: Decision;

  constructor(decision: Decision) {
    super(`the quota is exceeded: ${decision.refusedBy ?? "a limit"}`, {
      code: "RESOURCE_EXHAUSTED",
      reason: "QUOTA_EXCEEDED",
      retryAfterMs: decision.retryAfterMs,
      operationId: decision.operationId,
    });
    this.decision = decision;
  }
}

/** The buffer holds as much as it may. Nothing was accepted. */
export class BufferFullError extends TallygateError {
  override readonly kind = "BufferFull";
  constructor(message: string) {
    super(message, { code: "RESOURCE_EXHAUSTED", reason: "BUFFER_FULL" });
  }
}

/** The spool's folder is held by another process, or by another client of this one. */
export class SpoolInUseError extends TallygateError {
  override readonly kind = "SpoolInUse";

  constructor(message: string) {
    super(message, { code: "FAILED_PRECONDITION", reason: "SPOOL_IN_USE" });
  }
}

/** The spool's folder cannot be read or written. */
export class SpoolError extends TallygateError {
  override readonly kind = "Spool";
  constructor(message: string, cause?: unknown) {
    super(message, { code: "FAILED_PRECONDITION", reason: "SPOOL_UNUSABLE", cause });
  }
}

/** The client has been closed. */
export class ClosedError extends TallygateError {
  override readonly kind = "Closed";
  constructor(operationId = "") {
    super("the client is closed", { code: "CANCELLED", reason: "CLOSED", operationId });
  }
}

const BY_CODE: Partial<Record<StatusCode, typeof TallygateError>> = {
  INVALID_ARGUMENT: InvalidRequestError,
  OUT_OF_RANGE: InvalidRequestError,
  UNAVAILABLE: UnavailableError,
  // One that the caller did not ask for comes from a service that stops.
  CANCELLED: UnavailableError,
  DEADLINE_EXCEEDED: DeadlineExceededError,
  UNAUTHENTICATED: UnauthenticatedError,
  PERMISSION_DENIED: PermissionDeniedError,
  NOT_FOUND: NotFoundError,
  FAILED_PRECONDITION: FailedPreconditionError,
  ALREADY_EXISTS: FailedPreconditionError,
  ABORTED: FailedPreconditionError,
  RESOURCE_EXHAUSTED: ResourceExhaustedError,
};

/** A newer service may have more. */
const REASONS: Readonly<Record<number, string | undefined>> = Reason;

/** Return the error of what a call ended with. @internal */
export function fromStatus(error: ServiceError, operationId: string): TallygateError {
  const { reason, field, retryAfterMs } = detailsOf(error.metadata);
  return made(error.details || error.message, {
    code: nameOf(error.code),
    reason,
    field,
    retryAfterMs: retryAfterMs ?? pushbackOf(error.metadata),
    operationId,
  });
}

/** Return the error of one item of a list. @internal */
export function fromItem(error: ItemError, operationId: string): TallygateError {
  return made(error.message, {
    code: nameOf(error.code),
    reason: (REASONS[error.reason] ?? "").replace(/^REASON_/, ""),
    field: error.field,
    retryAfterMs: error.retryAfter && millis(error.retryAfter),
    operationId,
  });
}

/** Return the error for a field that is refused before anything is sent. @internal */
export function invalidField(field: string, message: string): InvalidRequestError {
  return new InvalidRequestError(message, {
    code: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    field,
  });
}

/** Say whether an error means that no answer came, so that the local policy decides. @internal */
export function isNoAnswer(error: unknown): boolean {
  return error instanceof UnavailableError || error instanceof DeadlineExceededError;
}

function made(message: string, details: ErrorDetails): TallygateError {
  return new (BY_CODE[details.code] ?? InternalError)(message, details);
}

function nameOf(code: number): StatusCode {
  return (status[code] ?? "UNKNOWN") as StatusCode;
}

function pushbackOf(metadata: Metadata | undefined): number | undefined {
  const pushback = Number(metadata?.get("grpc-retry-pushback-ms")[0] ?? Number.NaN);
  return pushback >= 0 ? pushback : undefined;
}

function detailsOf(metadata: Metadata | undefined) {
  const found = { reason: "", field: "", retryAfterMs: undefined as number | undefined };
  const packed = metadata?.get("grpc-status-details-bin")[0];
  if (!Buffer.isBuffer(packed)) {
    return found;
  }
  try {
    for (const { typeUrl, value } of Status.decode(packed).details) {
      if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
        const told = ErrorInfo.decode(value);
        found.reason = told.domain === "tallygate" ? told.reason : found.reason;
      } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
        found.field ||= BadRequest.decode(value).fieldViolations[0]?.field ?? "";
      } else if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
        const { retryDelay } = RetryInfo.decode(value);
        found.retryAfterMs = retryDelay && millis(retryDelay);
      }
    }
  } catch {
    // Details are a courtesy: the code stands without them.
  }
  return found;
}
