// What the tests of middleware share: a client of the sidecar, tenants, requests, and what is used.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@tallygate/client";

const TIMEOUT_MS = 10_000;
const POLL_MS = 5;

/** A client of the sidecar that `TALLYGATE_TARGET` names: without one these tests fail. */
export function sidecar(options = {}) {
  assert.ok(process.env.TALLYGATE_TARGET, "TALLYGATE_TARGET names no sidecar");
  return new Client({ timeoutMs: TIMEOUT_MS, ...options });
}

/** A tenant of the default plan, whose counters are its own. */
export function newTenant() {
  return `web-${randomUUID()}`;
}

/** What a tenant has used of a limit. */
export async function used(client, tenant, limitId) {
  const { limits } = await client.getQuota({ tenant });
  return limits.find((limit) => limit.limitId === limitId)?.used;
}

/** Wait until a tenant has used so much: settling comes after the response. */
export async function usedIs(client, tenant, limitId, wanted) {
  const until = Date.now() + TIMEOUT_MS;
  let found;
  while (Date.now() < until) {
    found = await used(client, tenant, limitId);
    if (found === wanted) {
      return;
    }
    await delay(POLL_MS);
  }
  assert.equal(found, wanted);
}

/** Ask for a path, and leave once `leaveAfter` bytes have come. */
export function leaveWithin(port, path, headers, leaveAfter) {
  return new Promise((resolve, reject) => {
    const asked = request({ port, path, headers, host: "127.0.0.1" }, (response) => {
      let got = 0;
      response.on("data", (chunk) => {
        got += chunk.length;
        if (got >= leaveAfter) {
          asked.destroy();
          resolve(got);
        }
      });
      response.on("error", () => undefined);
    });
    asked.on("error", (error) => (error.code === "ECONNRESET" ? undefined : reject(error)));
    asked.end();
  });
}

/** What every framework is held to: `app` serves the routes named below. */
export const CASES = [
  ["/ok", 200, "charged", 3],
  ["/created", 201, "charged", 3],
  ["/missing", 404, "a failure", 0],
  ["/throws", 500, "an error", 0],
  ["/cancelled", 200, "cancelled", 0],
  ["/less", 200, "set by the route", 1],
];
