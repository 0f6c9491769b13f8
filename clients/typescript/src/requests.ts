/**
 * From what callers say to the protos' messages.
 *
 * Guarantees that what a message could not carry unchanged is refused here, naming the field as the
 * service would: numbers beyond 2^53 - 1 or with fractions, and text that is not Unicode. All other
 * rules are the service's own. Refuses to know how messages are sent.
 */

import { randomUUID } from "node:crypto";
import { InvalidRequestError, invalidField } from "./errors.js";
import { Durability as DurabilityNumber, type EventContext } from "./gen/tallygate/v1/event.js";
import type { CheckAndConsumeRequest, Item as ItemMessage } from "./gen/tallygate/v1/quota.js";
import type { RecordUsageRequest } from "./gen/tallygate/v1/usage.js";
import type { Durability } from "./results.js";
import { timestamp } from "./time.js";
import { SDK } from "./version.js";

/** One use of one meter. */
export interface Item {
  readonly meter: string;
  /** In the meter's smallest unit, 1 to 2^53 - 1. */
  readonly amount: number;
  /** At most 16. */
  readonly dimensions?: Readonly<Record<string, string>> | undefined;
}

/** Items, or amounts by meter: `{ requests: 1 }`. */
export type Items = readonly Item[] | Readonly<Record<string, number>>;

/** The circumstances, stored with each event. */
export interface Context {
  readonly subjectId?: string | undefined;
  readonly resourceId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly region?: string | undefined;
  readonly sku?: string | undefined;
  readonly correlationId?: string | undefined;
  /** Which library sent it; this one's name and version unless set. */
  readonly sdk?: string | undefined;
}

/** A charge to decide. */
export interface ConsumeRequest {
  /** Who pays. */
  readonly tenant: string;
  readonly items: Items;
  /** Names this logical call; made unless given. */
  readonly operationId?: string | undefined;
  readonly context?: Context | undefined;
  readonly minDurability?: Durability | undefined;
}

/** Usage that has already happened. */
export interface Usage {
  readonly tenant: string;
  readonly meter: string;
  readonly amount: number;
  /** Unique per tenant; made unless given. */
  readonly eventId?: string | undefined;
  readonly operationId?: string | undefined;
  /** When it was used: when it is recorded, unless set. */
  readonly eventTime?: Date | undefined;
  readonly dimensions?: Readonly<Record<string, string>> | undefined;
  readonly context?: Context | undefined;
  /** At most 4 KiB as JSON. */
  readonly metadata?: Readonly<Record<string, unknown>> | undefined;
  readonly minDurability?: Durability | undefined;
}

/** @internal */
export function newId(given: string | undefined): string {
  return given || randomUUID();
}

/** Build each message of a list; what is refused names the request it is in. @internal */
export function inList<T, M>(list: readonly T[], build: (each: T, index: number) => M): M[] {
  return list.map((each, index) => {
    try {
      return build(each, index);
    } catch (error) {
      if (error instanceof InvalidRequestError) {
        throw invalidField(`requests[${index}].${error.field}`, error.message);
      }
      throw error;
    }
  });
}

/** @internal */
export function consumeMessage(
  request: ConsumeRequest,
  operationId: string,
): CheckAndConsumeRequest {
  return {
    tenantId: text(request.tenant, "tenant_id"),
    items: itemMessages(request.items),
    operationId: text(operationId, "operation_id"),
    context: contextMessage(request.context),
    minDurability: durability(request.minDurability),
  };
}

/** Return an event's message. Without a time the service takes its own. @internal */
export function usageMessage(usage: Usage): RecordUsageRequest {
  return {
    tenantId: text(usage.tenant, "tenant_id"),
    meter: text(usage.meter, "meter"),
    amount: integer(usage.amount, "amount"),
    eventId: text(newId(usage.eventId), "event_id"),
    operationId: text(usage.operationId ?? "", "operation_id"),
    eventTime: usage.eventTime && eventTime(usage.eventTime),
    dimensions: dimensions(usage.dimensions, "dimensions"),
    context: contextMessage(usage.context),
    metadata: metadata(usage.metadata),
    minDurability: durability(usage.minDurability),
  };
}

/** Return items as a list. @internal */
export function itemsOf(items: Items): Item[] {
  return Array.isArray(items)
    ? [...(items as readonly Item[])]
    : Object.entries(items as Record<string, number>).map(([meter, amount]) => ({
        meter,
        amount,
      }));
}

/** @internal */
export function itemMessages(items: Items): ItemMessage[] {
  return itemsOf(items).map((item, index) => ({
    meter: text(item.meter, `items[${index}].meter`),
    amount: integer(item.amount, `items[${index}].amount`),
    dimensions: dimensions(item.dimensions, `items[${index}].dimensions`),
  }));
}

/** @internal */
export function contextMessage(context: Context | undefined): EventContext {
  const field = (name: string, value: string | undefined) => text(value ?? "", `context.${name}`);
  return {
    subjectId: field("subject_id", context?.subjectId),
    resourceId: field("resource_id", context?.resourceId),
    sessionId: field("session_id", context?.sessionId),
    region: field("region", context?.region),
    sku: field("sku", context?.sku),
    correlationId: field("correlation_id", context?.correlationId),
    sdk: field("sdk", context?.sdk) || SDK,
  };
}

/** @internal */
export function dimensions(
  given: Readonly<Record<string, string>> | undefined,
  field: string,
): Record<string, string> {
  if (given === undefined) {
    return {};
  }
  for (const [key, value] of Object.entries(given)) {
    text(key, field);
    text(value, `${field}.${key}`);
  }
  return given;
}

/** @internal */
export function integer(value: number, field: string): number {
  if (!Number.isSafeInteger(value)) {
    throw invalidField(field, "must be a whole number of at most 2^53 - 1");
  }
  return value;
}

/** @internal */
export function text(value: string, field: string): string {
  if (typeof value !== "string") {
    throw invalidField(field, "must be a string");
  }
  // A lone surrogate has no UTF-8: it would arrive as another character.
  if (!value.isWellFormed()) {
    throw invalidField(field, "must be Unicode text, without lone surrogates");
  }
  return value;
}

function eventTime(at: Date) {
  if (Number.isNaN(at.getTime())) {
    throw invalidField("event_time", "is not a time");
  }
  return timestamp(at);
}

function durability(name: Durability | undefined): DurabilityNumber {
  const known: Readonly<Record<string, DurabilityNumber | string | undefined>> = DurabilityNumber;
  const value = known[`DURABILITY_${name ?? "UNSPECIFIED"}`];
  if (typeof value !== "number") {
    throw invalidField("min_durability", `there is no durability ${String(name)}`);
  }
  return value;
}

/** What JSON would make of it: that is what is stored. */
function metadata(given: Readonly<Record<string, unknown>> | undefined) {
  if (given === undefined) {
    return undefined;
  }
  let written: string;
  try {
    written = JSON.stringify(given);
  } catch (error) {
    throw invalidField("metadata", `is not JSON: ${(error as Error).message}`);
  }
  const read: unknown = JSON.parse(written);
  if (typeof read !== "object" || read === null || Array.isArray(read)) {
    throw invalidField("metadata", "must be an object");
  }
  // JSON.stringify escapes lone surrogates: what follows here is all that is left of them.
  if (/(?<!\\)(?:\\\\)*\\ud[89a-f]/.test(written)) {
    throw invalidField("metadata", "must be Unicode text, without lone surrogates");
  }
  return read as Record<string, unknown>;
}
