// The plugin in a real Fastify, beside a real sidecar.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { tallygate } from "@tallygate/client/fastify";
import Fastify from "fastify";
import { CASES, leaveWithin, newTenant, sidecar, used, usedIs } from "./metered.mjs";

const require = createRequire(import.meta.url);

describe("a Fastify app", () => {
  let client;
  let app;
  let port;

  before(async () => {
    client = sidecar();
    app = await appOf(client);
    await app.listen({ host: "127.0.0.1", port: 0 });
    port = app.server.address().port;
  });
  after(async () => {
    app.server.closeAllConnections();
    await app.close();
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

  it("answers 429 at the limit, with what the draft asks for", async () => {
    const tenant = newTenant();
    for (let count = 0; count < 3; count += 1) {
      const response = await get("/ok", tenant);
      assert.equal(response.status, 200);
      assert.match(response.headers.get("ratelimit"), /^"ten";r=\d;t=\d+$/);
      await usedIs(client, tenant, "ten", 3 * (count + 1));
    }
    const refused = await get("/ok", tenant);
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get("content-type"), "application/problem+json");
    assert.match(refused.headers.get("ratelimit"), /^"ten";r=1;t=\d+$/);
    assert.ok(Number(refused.headers.get("retry-after")) >= 1);
    assert.deepEqual((await refused.json())["violated-policies"], ["ten"]);
  });

  it("replaces fields that the app has set itself", async () => {
    const response = await get("/own-fields", newTenant());
    assert.match(response.headers.get("ratelimit"), /^"ten";r=7/);
    assert.equal(response.headers.get("x-own"), "kept");
  });

  it("meters a route as that says, or not at all", async () => {
    assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 200);
    const tenant = newTenant();
    await (await get("/dear", tenant)).text();
    await usedIs(client, tenant, "ten", 7);
    assert.equal((await get("/ok", "")).status, 400);
  });

  it("charges a stream by the bytes it sent", async () => {
    const tenant = newTenant();
    const response = await get("/bytes", tenant);
    assert.equal((await response.text()).length, 300);
    await usedIs(client, tenant, "tokens", 300);
  });

  it("charges what a client got that left within the response", async () => {
    const tenant = newTenant();
    await leaveWithin(port, "/endless", { "x-tenant": tenant }, 50);
    await usedIs(client, tenant, "tokens", 50);
  });

  it("charges nothing where a stream breaks off", async () => {
    const tenant = newTenant();
    await assert.rejects(get("/breaks", tenant).then((response) => response.text()));
    await usedIs(client, tenant, "tokens", 0);
  });

  it("is had by require too", async () => {
    const plugin = require("@tallygate/client/fastify").tallygate;
    assert.equal(plugin, tallygate);
    const other = Fastify();
    await other.register(plugin, { client, tenant: () => undefined, cost: { scarce: 1 } });
    other.get("/", async () => "never");
    assert.equal((await other.inject("/")).statusCode, 400);
    await other.close();
    assert.equal(await used(client, newTenant(), "ten"), 0);
  });
});

async function appOf(client) {
  const app = Fastify();
  await app.register(tallygate, { client, tenant: "x-tenant", cost: { scarce: 3 } });
  const bytes = { config: { tallygate: { cost: undefined, responseBytes: bytesOf(400) } } };
  app.get("/ok", async () => "fine");
  app.get("/created", (_, reply) => reply.code(201).send({}));
  app.get("/missing", (_, reply) => reply.code(404).send("no"));
  app.get("/throws", async () => {
    throw new Error("the app's own");
  });
  app.get("/cancelled", async (request) => {
    request.tallygate.cancel();
    return "nothing";
  });
  app.get("/less", async (request) => {
    request.tallygate.set("scarce", 1);
    return "less";
  });
  app.get("/own-fields", (_, reply) =>
    reply.headers({ ratelimit: "mine", "x-own": "kept" }).send("fine"),
  );
  app.get("/health", { config: { tallygate: false } }, async () => "fine");
  app.get("/dear", { config: { tallygate: { cost: { scarce: 7 } } } }, async () => "dear");
  app.get("/bytes", bytes, (_, reply) =>
    reply.send(Readable.from(["a".repeat(100), "b".repeat(200)])),
  );
  app.get("/endless", bytes, (_, reply) => {
    const source = new Readable({ read: () => undefined });
    source.push("x".repeat(50));
    return reply.send(source);
  });
  app.get("/breaks", bytes, (_, reply) => {
    const source = new Readable({ read: () => undefined });
    source.push("x".repeat(50));
    setImmediate(() => source.destroy(new Error("broken")));
    return reply.send(source);
  });
  return app;
}

function bytesOf(reserve) {
  return { meter: "tokens", reserve };
}
