/**
 * What the buffer holds, and how it lies in a spool and in a request.
 *
 * Guarantees that an event which another language's client has spooled is sent in that client's
 * very bytes, so that it is the same event however often and by whom it is sent.
 */

import { CommitRequest, QuotaServiceService as quota } from "./gen/tallygate/v1/quota.js";
import { BatchRecordUsageRequest, RecordUsageRequest } from "./gen/tallygate/v1/usage.js";
import type { RejectedEvent } from "./options.js";
import { Kind, type Segment } from "./spool.js";

/** Field 1 of `BatchRecordUsageRequest`, length-delimited. */
const REQUESTS_TAG = 0x0a;
const LENGTH_BYTES = 4;

/** An event that waits. @internal */
export interface UsageEntry {
  readonly kind: "usage";
  readonly id: string;
  readonly encoded: Buffer;
  segment?: Segment;
}

/** A commit that waits, and what to record where its reservation is gone. @internal */
export interface CommitEntry {
  readonly kind: "commit";
  readonly id: string;
  readonly encoded: Buffer;
  readonly fallback: readonly RecordUsageRequest[];
  segment?: Segment;
}

/** @internal */
export type Entry = UsageEntry | CommitEntry;

/** @internal */
export function usageEntry(message: RecordUsageRequest): UsageEntry {
  const encoded = Buffer.from(RecordUsageRequest.encode(message).finish());
  return { kind: "usage", id: message.eventId, encoded };
}

/** @internal */
export function commitEntry(
  request: CommitRequest,
  fallback: readonly RecordUsageRequest[],
): CommitEntry {
  const encoded = quota.commit.requestSerialize(request);
  return { kind: "commit", id: request.operationId, encoded, fallback };
}

/** Return an entry's kind and bytes in a spool. @internal */
export function payloadOf(entry: Entry): [kind: number, payload: Buffer] {
  if (entry.kind === "usage") {
    return [Kind.USAGE, entry.encoded];
  }
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(entry.encoded.length);
  const fallback = BatchRecordUsageRequest.encode({ requests: [...entry.fallback] }).finish();
  return [Kind.COMMIT_WITH_FALLBACK, Buffer.concat([length, entry.encoded, fallback])];
}

/** Return the entry of bytes in a spool; undefined for what is none. @internal */
export function entryOf(kind: number, payload: Buffer): Entry | undefined {
  try {
    switch (kind) {
      case Kind.USAGE:
        return {
          kind: "usage",
          id: RecordUsageRequest.decode(payload).eventId,
          encoded: payload,
        };
      case Kind.COMMIT:
        return {
          kind: "commit",
          id: CommitRequest.decode(payload).operationId,
          encoded: payload,
          fallback: [],
        };
      case Kind.COMMIT_WITH_FALLBACK: {
        const end = LENGTH_BYTES + payload.readUInt32LE(0);
        const encoded = payload.subarray(LENGTH_BYTES, end);
        const fallback = BatchRecordUsageRequest.decode(payload.subarray(end)).requests;
        return {
          kind: "commit",
          id: CommitRequest.decode(encoded).operationId,
          encoded,
          fallback,
        };
      }
      default:
        return undefined;
    }
  } catch {
    return undefined;
  }
}

/** Return the events as one `BatchRecordUsageRequest`. @internal */
export function encodeBatch(batch: readonly UsageEntry[]): Buffer {
  return Buffer.concat(
    batch.flatMap(({ encoded }) => [
      Buffer.from([REQUESTS_TAG, ...varint(encoded.length)]),
      encoded,
    ]),
  );
}

/** Return an entry as `onRejected` tells it. @internal */
export function rejectedOf(entry: Entry): RejectedEvent {
  if (entry.kind === "commit") {
    const { tenantId, reservationId } = CommitRequest.decode(entry.encoded);
    return { kind: "commit", tenant: tenantId, id: entry.id, reservationId };
  }
  const { tenantId, meter, amount } = RecordUsageRequest.decode(entry.encoded);
  return { kind: "usage", tenant: tenantId, id: entry.id, meter, amount };
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let left = value;
  for (; left > 0x7f; left >>>= 7) {
    bytes.push((left & 0x7f) | 0x80);
  }
  return [...bytes, left];
}
