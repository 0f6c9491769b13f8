// The middleware in a real Express, beside a real sidecar.

import assert from "node:assert/strict";
import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { after, before, describe, it } from "node:test";
import { Client } from "@tallygate/client";
import { tallygate } from "@tallygate/client/express";
import express from "express";
import { CASES, leaveWithin, newTenant, sidecar, used, usedIs } from "./metered.mjs";

const TEN = /"ten";r=(\d+);t=(\d+)/;

describe("an Express app", () => {
  let client;
  let server;
  let port;
  const told = [];

  before(async () => {
    client = sidecar();
    const app = appOf(client, told);
    server = app.listen(0, "127.0.0.1");
    await once(server, "listening");
    port = server.address().port;
  });
  after(async () => {
    server.closeAllConnections();
    server.close();
    await client.close();
  });
  const get = (path, tenant, options = {}) =>
    fetch(`http://127.0.0.1:${port}${path}`, { headers: { "x-tenant": tenant }, ...options });

  for (const [path, status, what, charged] of CASES) {
    it(`settles a response that is ${what} (${path})`, async () => {
      const tenant = newTenant();
      const response = await get(path, tenant);
      await response.text();
      assert.equal(response.status, status);
      await usedIs(client, tenant, "ten", charged);
    });
  }

  it("tells where the tenant stands, in place of the app's own fields", async () => {
    const response = await get("/own-fields", newTenant());
    assert.match(response.headers.get("ratelimit"), /^"ten";r=7;t=\d+$/);
    assert.equal(response.headers.get("ratelimit-policy"), '"ten";q=10;qu="requests";w=2592000');
    assert.equal(response.headers.get("x-own"), "kept");
  });

  it("answers 429 at the limit, without asking the app", async () => {
    const tenant = newTenant();
    for (let count = 0; count < 3; count += 1) {
      assert.equal((await get("/ok", tenant)).status, 200);
      await usedIs(client, tenant, "ten", 3 * (count + 1));
    }
    const refused = await get("/ok", tenant);
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get("content-type"), "application/problem+json");
    assert.equal(refused.headers.get("cache-control"), "no-store");
    const [, left, wait] = TEN.exec(refused.headers.get("ratelimit"));
    assert.equal(left, "1");
    assert.equal(refused.headers.get("retry-after"), wait);
    const body = await refused.json();
    assert.deepEqual(body["violated-policies"], ["ten"]);
    assert.equal(body.status, 429);
    assert.ok(body.operation_id);
    assert.equal(JSON.stringify(body).includes(tenant), false);
    assert.equal(await used(client, tenant, "ten"), 9);
  });

  it("answers who does not say who pays, and passes what is exempt or free", async () => {
    const nobody = await fetch(`http://127.0.0.1:${port}/ok`);
    assert.equal(nobody.status, 401);
    assert.equal(nobody.headers.get("www-authenticate"), "Bearer");
    assert.equal((await nobody.json()).type, "urn:tallygate:problem:tenant-missing");
    assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 200);
    assert.equal((await get("/free", newTenant())).status, 200);
    assert.equal((await get("/ok", "suspended")).status, 403);
    assert.equal((await get("/ok", "not a tenant")).status, 400);
  });

  it("answers without a body to HEAD", async () => {
    const response = await get("/ok", "suspended", { method: "HEAD" });
    assert.equal(response.status, 403);
    assert.equal(await response.text(), "");
  });

  it("charges a stream by the bytes it sent, as they are sent", async () => {
    const tenant = newTenant();
    const response = await get("/bytes/stream", tenant);
    assert.equal((await response.text()).length, 300);
    await usedIs(client, tenant, "tokens", 300);
  });

  it("counts bytes of text and of whole bodies, and none of a HEAD", async () => {
    const tenant = newTenant();
    await (await get("/bytes/text", tenant)).text();
    await usedIs(client, tenant, "tokens", 5);
    await get("/bytes/text", tenant, { method: "HEAD" });
    await usedIs(client, tenant, "tokens", 5);
  });

  it("charges what a client got that left within the response", async () => {
    const tenant = newTenant();
    const got = await leaveWithin(port, "/bytes/endless", { "x-tenant": tenant }, 50);
    assert.equal(got, 50);
    await usedIs(client, tenant, "tokens", 50);
  });

  it("charges nothing to a client that left before the response", async () => {
    const tenant = newTenant();
    const stop = new AbortController();
    const asked = get("/waits", tenant, { signal: stop.signal });
    await usedIs(client, tenant, "ten", 3);
    stop.abort();
    await assert.rejects(asked);
    await usedIs(client, tenant, "ten", 0);
  });

  it("gives back what was granted to a client that had left meanwhile", async () => {
    const tenant = newTenant();
    let released;
    const ended = new Promise((resolve) => {
      released = resolve;
    });
    const hooks = { onCall: (method, code) => method === "Release" && released(code) };
    const own = sidecar({ hooks });
    const app = express();
    let came;
    const asked = new Promise((resolve) => {
      came = resolve;
    });
    const left = async (request) => {
      came();
      await once(request.res, "close");
      return tenant;
    };
    app.use(tallygate({ client: own, tenant: left, cost: { scarce: 3 } }), () => undefined);
    const other = app.listen(0, "127.0.0.1");
    await once(other, "listening");
    const stop = new AbortController();
    const { signal } = stop;
    const called = fetch(`http://127.0.0.1:${other.address().port}/`, { signal });
    await asked;
    stop.abort();
    await assert.rejects(called);
    assert.equal(await ended, "OK");
    assert.equal(await used(own, tenant, "ten"), 0);
    other.close();
    await own.close();
  });

  it("charges nothing for a response that the app breaks off", async () => {
    const tenant = newTenant();
    await assert.rejects(get("/bytes/breaks", tenant).then((response) => response.text()));
    await usedIs(client, tenant, "tokens", 0);
  });

  it("charges before and refunds failures in mode consume", async () => {
    const tenant = newTenant();
    await (await get("/before/ok", tenant)).text();
    assert.equal(await used(client, tenant, "ten"), 2);
    await (await get("/before/missing", tenant)).text();
    await usedIs(client, tenant, "ten", 2);
    const { limits } = await client.getQuota({ tenant });
    assert.equal(limits.find(({ limitId }) => limitId === "ten").remaining, 8);
  });

  it("refuses options that contradict each other when they are given", () => {
    const bytes = { meter: "tokens", reserve: 1 };
    const options = { client, tenant: "x-tenant", mode: "consume", responseBytes: bytes };
    assert.throws(() => tallygate(options), /responseBytes/);
  });

  it("tells the operator what a client is not told", async () => {
    told.length = 0;
    const response = await get("/unknown-meter", newTenant());
    assert.equal(response.status, 500);
    assert.equal((await response.json()).type, "urn:tallygate:problem:metering-failed");
    assert.equal(told[0].reason, "UNKNOWN_METER");
  });
});

describe("an Express app whose sidecar is away", () => {
  const serve = async (onAbsent) => {
    const client = new Client({ target: "127.0.0.1:1", onAbsent, retry: false });
    const app = express();
    app.use(tallygate({ client, tenant: "x-tenant", cost: { scarce: 1 } }));
    app.get("/", (_, response) => response.send("served"));
    const server = app.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${server.address().port}/`;
    const response = await fetch(url, { headers: { "x-tenant": "acme", connection: "close" } });
    const text = await response.text();
    server.close();
    await client.close();
    return { response, text };
  };

  it("answers 503 under the policy closed", async () => {
    const { response, text } = await serve("closed");
    assert.equal(response.status, 503);
    assert.equal(response.headers.get("retry-after"), "1");
    assert.equal(JSON.parse(text).type, "urn:tallygate:problem:metering-unavailable");
  });

  it("serves under the policy open, without fields", async () => {
    const { response, text } = await serve("open");
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("ratelimit"), null);
    assert.equal(text, "served");
  });
});

function appOf(client, told) {
  const app = express();
  app.set("env", "test");
  const metered = { client, tenant: "x-tenant", challenge: "Bearer" };
  const onError = (error) => told.push(error);
  app.use("/bytes", tallygate({ ...metered, responseBytes: { meter: "tokens", reserve: 400 } }));
  app.use("/before", tallygate({ ...metered, mode: "consume", cost: { scarce: 2 } }));
  app.use("/unknown-meter", tallygate({ ...metered, cost: { nothing: 1 }, onError }));
  const named = { quotaUnits: { scarce: "requests" }, windows: { ten: 2_592_000 } };
  const ours = (request) => /^\/(bytes|before)\//.test(request.path) || request.path === "/health";
  const cost = (request) => (request.path === "/free" ? undefined : { scarce: 3 });
  app.use(tallygate({ ...metered, ...named, cost, exempt: ours }));

  app.get(["/ok", "/health", "/free", "/before/ok"], (_, response) => response.send("fine"));
  app.get("/created", (_, response) => response.status(201).json({}));
  app.get("/throws", () => {
    throw new Error("the app's own");
  });
  app.get("/cancelled", (request, response) => {
    request.tallygate.cancel();
    response.send("nothing");
  });
  app.get("/less", (request, response) => {
    request.tallygate.set("scarce", 1);
    response.send("less");
  });
  app.get("/own-fields", (_, response) => {
    const own = { RateLimit: "mine", "ratelimit-policy": "mine", "X-Own": "kept" };
    response.writeHead(200, own).end();
  });
  app.get("/waits", () => undefined);
  app.get("/bytes/text", (_, response) => response.send("göß"));
  app.get("/bytes/stream", async (_, response) => {
    await pipeline(Readable.from(["a".repeat(100), "b".repeat(200)]), response);
  });
  app.get("/bytes/endless", (_, response) => response.write("x".repeat(50)));
  app.get("/bytes/breaks", (_, response) => {
    response.write("x".repeat(50), () => response.destroy(new Error("broken")));
  });
  app.use((_error, _request, response, _next) => response.status(500).send("broken"));
  return app;
}
