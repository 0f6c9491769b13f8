/**
 * Between the protos' times and JavaScript's: milliseconds and `Date`.
 *
 * Guarantees that a wait is rounded up, so that who waits so long does not come too early.
 */

import type { Duration } from "./gen/google/protobuf/duration.js";
import type { Timestamp } from "./gen/google/protobuf/timestamp.js";

/** Return a duration in whole milliseconds, rounded up. @internal */
export function millis(duration: Duration): number {
  return duration.seconds * 1000 + Math.ceil(duration.nanos / 1e6);
}

/** Return milliseconds as a duration. @internal */
export function duration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

/** Return a timestamp as a `Date`, rounded up to its millisecond. @internal */
export function date(timestamp: Timestamp): Date {
  return new Date(timestamp.seconds * 1000 + Math.ceil(timestamp.nanos / 1e6));
}

/** Return a `Date` as a timestamp. @internal */
export function timestamp(at: Date): Timestamp {
  const ms = at.getTime();
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: (ms - seconds * 1000) * 1e6 };
}
