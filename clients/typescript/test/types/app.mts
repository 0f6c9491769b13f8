// What an app in TypeScript writes, as a module: it is compiled, not run.

import {
  type Client,
  type Decision,
  QuotaExceededError,
  UnavailableError,
} from "@tallygate/client";
import { tallygate as forExpress } from "@tallygate/client/express";
import { tallygate as forFastify } from "@tallygate/client/fastify";
import { QuotaServiceClient } from "@tallygate/client/proto";
import express from "express";
import Fastify from "fastify";

export async function used(client: Client, signal?: AbortSignal): Promise<number> {
  const decision: Decision = await client.checkAndConsume(
    { tenant: "acme", items: { requests: 1 } },
    { signal },
  );
  const listed = [{ meter: "tokens", amount: 5, dimensions: { model: "m" } }];
  // @ts-expect-error An amount is a number.
  await client.check({ tenant: "acme", items: { requests: "1" } });
  // @ts-expect-error Somebody pays.
  await client.check({ items: listed });
  try {
    await using held = await client.reserve({ tenant: "acme", items: listed, ttlMs: 1000 });
    await held.commit({ amounts: [3], excess: "ask" });
  } catch (error) {
    if (error instanceof UnavailableError) {
      return error.retryAfterMs ?? 0;
    }
    if (error instanceof QuotaExceededError) {
      return error.decision.limits.length;
    }
  }
  for await (const { limits, cause } of client.watchQuota({ tenant: "acme" })) {
    if (cause === "CROSSED") {
      return limits[0]?.remaining ?? 0;
    }
  }
  return await client.withReservation({ tenant: "acme", items: listed }, async (held) => {
    held.set("tokens", 2);
    return decision.limits.length;
  });
}

export function apps(client: Client): void {
  const app = express();
  app.use(
    forExpress({
      client,
      tenant: (request) => request.get("x-tenant"),
      cost: (request) => ({ requests: request.path.length }),
    }),
  );
  app.get("/", (request, response) => {
    request.tallygate?.add("requests", 1);
    response.end();
  });
  const fastify = Fastify();
  fastify.register(forFastify, { client, tenant: "x-tenant", cost: { requests: 1 } });
  fastify.get("/", { config: { tallygate: { cost: { requests: 2 } } } }, async (request) => {
    request.tallygate?.cancel();
  });
}

export const Stub: typeof QuotaServiceClient = QuotaServiceClient;
