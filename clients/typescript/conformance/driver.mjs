// Plays the conformance cases with this client: one JSON object per line in, one per line out.
//
// The operations and their answers are described in docs/clients.md. Only the public client is used.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { credentials } from "@grpc/grpc-js";
import { Client, QuotaExceededError, TallygateError, VERSION } from "@tallygate/client";
import { QuotaServiceClient } from "@tallygate/client/proto";

class WorkFailed extends Error {}

const clients = new Map();
const handles = new Map();
const targets = new Map();

const operations = {
  hello: () => ({ sdk: `tallygate-node/${VERSION}`, language: "node" }),

  open({ client, target, tls, on_absent, timeout_ms, retry, buffer }) {
    const options = { target };
    if (tls) {
      const { ca_file, cert_file, key_file } = tls;
      options.tls = dropUnset({
        ca: file(ca_file),
        cert: file(cert_file),
        key: file(key_file),
      });
    }
    if (buffer) {
      const { max_events, spool_dir, batch, flush_ms } = buffer;
      options.buffer = dropUnset({
        maxEvents: max_events,
        spoolDir: spool_dir,
        batch,
        flushMs: flush_ms,
      });
    }
    const more = dropUnset({ onAbsent: on_absent, timeoutMs: timeout_ms, retry });
    clients.set(client, new Client({ ...options, ...more }));
    targets.set(client, target);
    return {};
  },

  async close(asked) {
    return { flushed: await of(asked).close(asked.timeout_ms ?? undefined) };
  },

  async check_and_consume(asked) {
    return decision(await of(asked).checkAndConsume(charge(asked), call(asked)));
  },

  async check(asked) {
    return decision(await of(asked).check(charge(asked), call(asked)));
  },

  async get_quota(asked) {
    const { tenant, meters } = asked;
    const quota = await of(asked).getQuota(dropUnset({ tenant, meters }), call(asked));
    const { limits, plan, catalogVersion } = quota;
    return { limits: limits.map(limit), plan, catalog_version: catalogVersion };
  },

  async batch_check_and_consume(asked) {
    const results = await of(asked).batchCheckAndConsume(asked.requests.map(charge), call(asked));
    return { results: results.map((result) => itemOf(result, decision)) };
  },

  async reserve(asked) {
    const reservation = await of(asked).reserve(reserving(asked), call(asked));
    if (asked.as) {
      handles.set(asked.as, reservation);
    }
    return { ...decision(reservation.decision), reservation_id: reservation.id };
  },

  async commit(asked) {
    const options = { ...call(asked), ...settling(asked) };
    if (asked.handle) {
      return settlement(await handles.get(asked.handle).commit(options));
    }
    const { tenant, reservation_id: reservationId } = asked;
    return settlement(
      await of(asked).commit({ tenant, reservationId, ...settling(asked) }, call(asked)),
    );
  },

  async release(asked) {
    const { tenant, reservation_id: reservationId, operation_id: operationId } = asked;
    const { outcome, replayed } = asked.handle
      ? await handles.get(asked.handle).release(call(asked))
      : await of(asked).release(dropUnset({ tenant, reservationId, operationId }), call(asked));
    return { outcome, replayed };
  },

  async extend(asked) {
    const { tenant, reservation_id: reservationId, ttl_ms: ttlMs } = asked;
    const { outcome } = asked.handle
      ? await handles.get(asked.handle).extend(ttlMs, call(asked))
      : await of(asked).extend(dropUnset({ tenant, reservationId, ttlMs }), call(asked));
    return { outcome };
  },

  async with_reserve(asked) {
    let held;
    await of(asked).withReservation(
      reserving(asked),
      async (reservation) => {
        held = reservation;
        await delay(asked.hold_ms ?? 0);
        if (asked.work === "fail") {
          throw new WorkFailed("the work failed");
        }
        for (const [index, amount] of (asked.actual ?? []).entries()) {
          reservation.set(itemsOf(asked)[index].meter, amount);
        }
      },
      { ...call(asked), ...dropUnset({ excess: asked.excess }) },
    );
    return settlement(held.settlement);
  },

  async refund(asked) {
    const { tenant, event_id: eventId, amount, operation_id: operationId } = asked;
    const refunded = await of(asked).refund(
      dropUnset({ tenant, eventId, amount, operationId }),
      call(asked),
    );
    return {
      event_id: refunded.eventId,
      amount: refunded.amount,
      replayed: refunded.replayed,
      durability: refunded.durability,
      operation_id: refunded.operationId,
      limits: refunded.limits.map(limit),
    };
  },

  async record(asked) {
    return recorded(await of(asked).recordUsage(usage(asked), call(asked)));
  },

  async batch_record(asked) {
    const results = await of(asked).batchRecordUsage(asked.requests.map(usage), call(asked));
    return { results: results.map((result) => itemOf(result, recorded)) };
  },

  buffer_record: (asked) => ({ event_id: of(asked).buffer.record(usage(asked)) }),

  flush: async (asked) => ({ flushed: await of(asked).buffer.flush(asked.timeout_ms) }),

  stats(asked) {
    return Object.fromEntries(
      Object.entries(of(asked).stats()).map(([name, value]) => [snake(name), value]),
    );
  },

  async cancel_call(asked) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), asked.after_ms);
    try {
      return await perform({ client: asked.client, ...asked.call, signal: stop.signal });
    } finally {
      clearTimeout(timer);
    }
  },

  async parallel(asked) {
    const one = () => answer({ client: asked.client, ...asked.call });
    return { results: await Promise.all(Array.from({ length: asked.n }, one)) };
  },

  async bench(asked) {
    const once = asked.how === "bare" ? bare(asked) : charging(asked);
    await load(once, asked.warmup ?? 0, asked.concurrency);
    const began = performance.now();
    const taken = await load(once, asked.calls, asked.concurrency);
    const seconds = (performance.now() - began) / 1000;
    taken.sort((a, b) => a - b);
    const total = taken.reduce((sum, each) => sum + each, 0);
    const p99 = taken[Math.min(taken.length - 1, Math.floor(taken.length * 0.99))];
    return { seconds, mean_us: (total / taken.length) * 1000, p99_us: p99 * 1000 };
  },

  bye() {
    process.exit(0);
  },
};

function perform(asked) {
  const operation = operations[asked.do];
  if (operation === undefined) {
    throw new Error(`there is no operation ${asked.do}`);
  }
  return operation(asked);
}

async function answer(asked) {
  try {
    return { ok: await perform(asked) };
  } catch (error) {
    return { error: errorOf(error) };
  }
}

function of({ client }) {
  const found = clients.get(client);
  if (found === undefined) {
    throw new Error(`there is no client ${client}`);
  }
  return found;
}

function call({ timeout_ms: timeoutMs, signal }) {
  return dropUnset({ timeoutMs, signal });
}

function itemsOf({ items }) {
  return items.map(({ meter, amount, dimensions }) => dropUnset({ meter, amount, dimensions }));
}

function charge(asked) {
  const { tenant, operation_id: operationId, min_durability: minDurability, context } = asked;
  return dropUnset({
    tenant,
    items: itemsOf(asked),
    operationId,
    minDurability,
    context: contextOf(context),
  });
}

function reserving(asked) {
  return dropUnset({ ...charge(asked), ttlMs: asked.ttl_ms });
}

function settling({ amounts, operation_id: operationId, excess }) {
  return dropUnset({ amounts, operationId, excess: excess?.toLowerCase() });
}

function usage(asked) {
  const { tenant, meter, amount, event_id: eventId, dimensions, metadata } = asked;
  const eventTime = asked.event_time_ms === undefined ? undefined : new Date(asked.event_time_ms);
  return dropUnset({
    tenant,
    meter,
    amount,
    eventId,
    operationId: asked.operation_id,
    minDurability: asked.min_durability,
    eventTime,
    dimensions,
    metadata,
    context: contextOf(asked.context),
  });
}

function contextOf(context) {
  return context && Object.fromEntries(Object.entries(context).map(([k, v]) => [camel(k), v]));
}

function decision(told) {
  return {
    allowed: told.allowed,
    refused_by: told.refusedBy ?? "",
    retry_after_ms: told.retryAfterMs ?? null,
    replayed: told.replayed,
    durability: told.durability,
    event_ids: told.eventIds,
    degraded: told.degraded,
    local: told.local,
    operation_id: told.operationId,
    limits: told.limits.map(limit),
  };
}

function limit(told) {
  const { limitId, meter, state, used, limit, remaining, unlimited, scope } = told;
  return { limit_id: limitId, meter, state, used, limit, remaining, unlimited, scope };
}

function settlement(told) {
  return {
    outcome: told.outcome,
    replayed: told.replayed,
    refused_by: told.refusedBy ?? "",
    unrecorded: told.unrecorded,
    event_ids: told.eventIds,
    durability: told.durability,
    recorded_after: told.recordedAfter,
    operation_id: told.operationId,
  };
}

function recorded({ eventId, replayed, durability, degraded }) {
  return { event_id: eventId, replayed, durability, degraded };
}

function itemOf(result, shown) {
  return result.ok ? { ok: shown(result.value) } : { error: errorOf(result.error) };
}

function errorOf(error) {
  if (error instanceof WorkFailed) {
    return { kind: "WorkFailed", message: error.message };
  }
  if (!(error instanceof TallygateError)) {
    return { kind: "Unexpected", message: String(error?.stack ?? error) };
  }
  return {
    kind: error.kind,
    code: error.code,
    reason: error.reason,
    field: error.field,
    message: error.message,
    retry_after_ms: error.retryAfterMs ?? null,
    operation_id: error.operationId,
    ...(error instanceof QuotaExceededError ? { decision: decision(error.decision) } : {}),
  };
}

async function load(once, calls, concurrency) {
  const taken = [];
  let left = calls;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      const began = performance.now();
      await once();
      taken.push(performance.now() - began);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return taken;
}

function charging(asked) {
  const client = of(asked);
  const { tenant = "bench", items = [{ meter: "requests", amount: 1 }] } = asked;
  return () => client.checkAndConsume({ tenant, items }, { timeoutMs: 10_000 });
}

function bare(asked) {
  const stub = new QuotaServiceClient(targets.get(asked.client), credentials.createInsecure());
  const { tenant = "bench", items = [{ meter: "requests", amount: 1 }] } = asked;
  let count = 0;
  const run = `${process.pid}-${Date.now()}`;
  return () =>
    new Promise((resolve, reject) => {
      count += 1;
      const message = {
        tenantId: tenant,
        items: items.map(({ meter, amount }) => ({ meter, amount, dimensions: {} })),
        operationId: `${run}-${count}`,
        minDurability: 0,
      };
      stub.checkAndConsume(message, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
}

function file(path) {
  return path && readFileSync(path);
}

function dropUnset(options) {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined && value !== null),
  );
}

function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camel(name) {
  return name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  process.stdout.write(`${JSON.stringify({ id: asked.id, ...(await answer(asked)) })}\n`);
}
process.exit(0);
