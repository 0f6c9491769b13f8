/**
 * A client of Tallygate, quota and metering for services: ask before costly work, tell after.
 *
 * @packageDocumentation
 */

export type { UsageBuffer } from "./buffer.js";
export { Client } from "./client.js";
export {
  BufferFullError,
  CancelledError,
  ClosedError,
  DeadlineExceededError,
  type ErrorDetails,
  FailedPreconditionError,
  InternalError,
  InvalidRequestError,
  NotFoundError,
  PermissionDeniedError,
  QuotaExceededError,
  ResourceExhaustedError,
  SpoolError,
  SpoolInUseError,
  type StatusCode,
  TallygateError,
  UnauthenticatedError,
  UnavailableError,
} from "./errors.js";
export type {
  BufferOptions,
  CallOptions,
  ClientOptions,
  Hooks,
  OnAbsent,
  RejectedEvent,
  TlsOptions,
} from "./options.js";
export type {
  CheckRequest,
  CommitRequest,
  QuotaRequest,
  RefundRequest,
  ReservationRequest,
  ReserveRequest,
  WorkOptions,
} from "./questions.js";
export type { ConsumeRequest, Context, Item, Items, Usage } from "./requests.js";
export type { CommitOptions, ExcessPolicy, Reservation } from "./reservation.js";
export type {
  BatchResult,
  Decision,
  Durability,
  Extended,
  LimitState,
  LimitStatus,
  Outcome,
  Quota,
  QuotaChange,
  Recorded,
  Refunded,
  Released,
  Settlement,
} from "./results.js";
export type { Stats } from "./stats.js";
export { VERSION } from "./version.js";
export type { WatchOptions } from "./watch.js";
