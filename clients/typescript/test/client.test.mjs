// What a call sends, and what its answers become.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { Server, status } from "@grpc/grpc-js";
import {
  CancelledError,
  Client,
  ClosedError,
  DeadlineExceededError,
  InternalError,
  InvalidRequestError,
  NotFoundError,
  QuotaExceededError,
  UnavailableError,
  VERSION,
} from "@tallygate/client";
import { QuotaServiceService } from "@tallygate/client/proto";
import { bind, fakeService, granted, refusal } from "./fake-service.mjs";

const require = createRequire(import.meta.url);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const items = { requests: 1 };

describe("a client", () => {
  let service;
  let client;

  before(async () => {
    service = await fakeService();
    client = new Client({ target: service.target });
  });
  beforeEach(() => {
    service.calls.length = 0;
    service.answers.checkAndConsume = () => granted();
  });
  after(async () => {
    await client.close();
    service.stop();
  });

  it("sends a charge with an id, its context and the library's name", async () => {
    const decision = await client.checkAndConsume({
      tenant: "acme",
      items: [{ meter: "tokens", amount: 2 ** 53 - 1, dimensions: { model: "größe" } }],
      context: { subjectId: "ann" },
      minDurability: "JOURNAL",
    });
    const [{ request, metadata }] = service.calls;
    assert.match(decision.operationId, UUID);
    assert.equal(request.operationId, decision.operationId);
    assert.equal(request.minDurability, 3);
    assert.deepEqual(request.items, [
      { meter: "tokens", amount: 2 ** 53 - 1, dimensions: { model: "größe" } },
    ]);
    assert.equal(request.context.subjectId, "ann");
    assert.equal(request.context.sdk, `tallygate-node/${VERSION}`);
    assert.match(metadata.get("user-agent")[0], /^tallygate-node\/\d/);
  });

  it("says its package's version", () => {
    assert.equal(VERSION, require("../package.json").version);
  });

  it("is one class for import and require, so that errors are the same", () => {
    assert.equal(require("@tallygate/client").Client, Client);
  });

  it("reads a refusal as a value, times and unknown enums included", async () => {
    service.answers.checkAndConsume = () =>
      granted({
        allowed: false,
        refusedBy: "ten",
        retryAfter: { seconds: 1, nanos: 500_000_001 },
        durability: 0,
        limits: [
          {
            limitId: "ten",
            meter: "tokens",
            state: 99,
            used: 10,
            limit: 10,
            remaining: 0,
            resetsAt: { seconds: 1_700_000_000, nanos: 1 },
            tenantId: "acme",
            scope: "",
            unlimited: false,
          },
        ],
      });
    const decision = await client.checkAndConsume({ tenant: "acme", items });
    assert.equal(decision.allowed, false);
    assert.equal(decision.refusedBy, "ten");
    assert.equal(decision.retryAfterMs, 1501);
    assert.equal(decision.limits[0].state, "UNSPECIFIED");
    assert.equal(decision.limits[0].resetsAt.getTime(), 1_700_000_000_001);
  });

  const unfit = [
    [{ tenant: "a", items: [{ meter: "m", amount: 2 ** 53 }] }, "items[0].amount"],
    [{ tenant: "a", items: { m: 1.5 } }, "items[0].amount"],
    [{ tenant: "a", items: { "m\ud800": 1 } }, "items[0].meter"],
    [{ tenant: "a\udfff", items }, "tenant_id"],
    [{ tenant: 7, items }, "tenant_id"],
    [{ tenant: "a", items, operationId: "\ud800" }, "operation_id"],
    [{ tenant: "a", items, context: { region: "\ud800" } }, "context.region"],
    [{ tenant: "a", items, minDurability: "MARBLE" }, "min_durability"],
  ];
  for (const [request, field] of unfit) {
    it(`refuses what a message could not carry unchanged: ${field}`, async () => {
      await assert.rejects(client.checkAndConsume(request), (error) => {
        assert(error instanceof InvalidRequestError);
        assert.equal(error.field, field);
        assert.equal(error.reason, "INVALID_FIELD");
        assert.ok(error.operationId);
        return true;
      });
      assert.equal(service.calls.length, 0);
    });
  }

  it("names the request of a list that is unfit", async () => {
    const requests = [
      { tenant: "a", items },
      { tenant: "a", items: { m: 0.5 } },
    ];
    await assert.rejects(client.batchCheckAndConsume(requests), {
      field: "requests[1].items[0].amount",
    });
  });

  it("takes text with the letters of an escape for what it is", async () => {
    service.answers.recordUsage = ({ eventId }) => ({
      eventId,
      replayed: false,
      durability: 3,
    });
    const told = String.raw`\ud800`;
    const usage = { tenant: "a", meter: "m", amount: 1 };
    await client.recordUsage({ ...usage, metadata: { told } });
    assert.equal(service.calls[0].request.metadata.told, told);
    await assert.rejects(client.recordUsage({ ...usage, metadata: { told: "\ud800" } }), {
      field: "metadata",
    });
  });

  it("ends at its deadline, which the service is told", async () => {
    service.answers.checkAndConsume = () => new Promise(() => undefined);
    const request = { tenant: "acme", items, operationId: "mine" };
    await assert.rejects(client.checkAndConsume(request, { timeoutMs: 60 }), (error) => {
      assert(error instanceof DeadlineExceededError);
      assert.equal(error.operationId, "mine");
      return true;
    });
  });

  it("ends with its signal, by the signal's own name, without a local decision", async () => {
    const open = new Client({ target: service.target, onAbsent: "open" });
    const stop = new AbortController();
    service.answers.checkAndConsume = () => {
      stop.abort();
      return new Promise(() => undefined);
    };
    const called = open.checkAndConsume({ tenant: "acme", items }, { signal: stop.signal });
    await assert.rejects(called, (error) => {
      assert(error instanceof CancelledError);
      assert.equal(error.name, "AbortError");
      assert.equal(error.cause, stop.signal.reason);
      return true;
    });
    await assert.rejects(
      open.checkAndConsume({ tenant: "acme", items }, { signal: stop.signal }),
      CancelledError,
    );
    assert.equal(open.stats().localOpen, 0);
    await open.close();
  });

  it("types a status that has no details, and one with unreadable ones", async () => {
    service.answers.checkAndConsume = () => {
      throw refusal(status.DATA_LOSS, "gone", {
        "grpc-status-details-bin": Buffer.from("x"),
      });
    };
    await assert.rejects(client.checkAndConsume({ tenant: "acme", items }), (error) => {
      assert(error instanceof InternalError);
      assert.equal(error.code, "DATA_LOSS");
      assert.equal(error.message, "gone");
      return true;
    });
  });

  it("tells hooks of calls, and survives what they throw", async () => {
    const told = [];
    const hooks = {
      onCall: (...call) => {
        told.push(call);
        throw new Error("a hook's own");
      },
      onLocal: (...local) => told.push(local),
    };
    const open = new Client({ target: service.target, onAbsent: "open", retry: false, hooks });
    service.answers.checkAndConsume = () => {
      throw refusal(status.UNAVAILABLE);
    };
    const decision = await open.checkAndConsume({ tenant: "acme", items });
    assert.equal(decision.local, true);
    assert.deepEqual(decision.eventIds, []);
    const [[method, code, seconds], local] = told;
    assert.deepEqual([method, code], ["CheckAndConsume", "UNAVAILABLE"]);
    assert.ok(seconds >= 0);
    assert.deepEqual(local, ["CheckAndConsume", "open"]);
    assert.deepEqual(open.stats().localByMethod, { CheckAndConsume: { open: 1, closed: 0 } });
    assert.equal(service.calls.length, 1);
    await open.close();
  });

  it("refuses calls once it is closed", async () => {
    const closed = new Client({ target: service.target, onAbsent: "open" });
    assert.equal(await closed.close(), true);
    assert.equal(await closed.close(), true);
    await assert.rejects(closed.checkAndConsume({ tenant: "acme", items }), ClosedError);
    await assert.rejects(closed.watchQuota({ tenant: "acme" }).next(), ClosedError);
  });

  it("is closed once the calls under way have ended", async () => {
    const closing = new Client({ target: service.target });
    let answer;
    service.answers.checkAndConsume = () =>
      new Promise((resolve) => {
        answer = () => resolve(granted());
        asked();
      });
    let asked;
    const begun = new Promise((resolve) => {
      asked = resolve;
    });
    const called = closing.checkAndConsume({ tenant: "acme", items });
    await begun;
    const closed = closing.close();
    await assert.rejects(closing.getQuota({ tenant: "acme" }), ClosedError);
    answer();
    assert.equal((await called).allowed, true);
    assert.equal(await closed, true);
  });

  it("speaks over a Unix socket, by both ways to write it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tg-"));
    const server = new Server();
    server.addService(QuotaServiceService, {
      checkAndConsume: (_, reply) => reply(null, granted()),
    });
    await bind(server, `unix:${folder}/s`);
    for (const target of [`unix:${folder}/s`, `unix://${folder}/s`]) {
      const local = new Client({ target });
      assert.equal((await local.checkAndConsume({ tenant: "acme", items })).allowed, true);
      await local.close();
    }
    server.forceShutdown();
    rmSync(folder, { recursive: true });
  });

  describe("watching", () => {
    const state = { limits: [], cause: 1, plan: "pro", catalogVersion: 3 };

    it("yields states until the loop is left", async () => {
      let ended;
      const left = new Promise((resolve) => {
        ended = resolve;
      });
      service.answers.watchQuota = (_, call) => {
        call.write(state);
        call.write({ ...state, cause: 2 });
        call.on("cancelled", ended);
      };
      const seen = [];
      for await (const { cause, plan } of client.watchQuota({ tenant: "acme" })) {
        seen.push([cause, plan]);
        if (seen.length === 2) {
          break;
        }
      }
      assert.deepEqual(seen, [
        ["SNAPSHOT", "pro"],
        ["CHANGED", "pro"],
      ]);
      await left;
    });

    it("throws when the service stops, or is opened anew after the pushback", async () => {
      let streams = 0;
      service.answers.watchQuota = (_, call) => {
        streams += 1;
        call.write(state);
        call.emit("error", refusal(status.UNAVAILABLE, "stops", { "grpc-retry-pushback-ms": "1" }));
      };
      const plain = client.watchQuota({ tenant: "acme" });
      await plain.next();
      await assert.rejects(plain.next(), UnavailableError);
      const stop = new AbortController();
      const options = { reconnect: true, signal: stop.signal };
      const lasting = client.watchQuota({ tenant: "acme" }, options);
      await lasting.next();
      await lasting.next();
      assert.equal(streams, 3);
      stop.abort();
      await assert.rejects(lasting.next(), CancelledError);
    });
  });
});

describe("a reservation", () => {
  let service;
  let client;
  const reserved = { ...granted(), reservationId: "0a-op", expiresAt: { seconds: 9, nanos: 0 } };
  const settled = { limits: [], refusedBy: "", unrecorded: [], replayed: false, durability: 2 };
  const asked = { tenant: "acme", items: { tokens: 50, requests: 2 } };

  beforeEach(async () => {
    service = await fakeService({
      reserve: () => reserved,
      release: () => ({ outcome: 3, replayed: false }),
      commit: () => ({ outcome: 1, eventIds: ["e"], ...settled }),
      extendReservation: () => ({ outcome: 4 }),
      batchRecordUsage: ({ requests }) => ({
        results: requests.map(({ eventId }) => ({
          response: { eventId, replayed: false, durability: 3, degraded: false },
        })),
      }),
    });
    client = new Client({ target: service.target, retry: false });
  });
  const end = async () => {
    await client.close(100);
    service.stop();
  };
  const sent = (name) => service.calls.filter((call) => call.name === name);

  it("commits what the work has set, and what was reserved of the rest", async () => {
    const result = await client.withReservation(asked, (held) => {
      held.add("tokens", 20);
      held.add("tokens", 5);
      assert.throws(() => held.set("images", 1), /images/);
      return "made";
    });
    assert.equal(result, "made");
    const [{ request }] = sent("commit");
    assert.deepEqual(request.amounts, [25, 2]);
    assert.equal(request.excess, 2);
    assert.equal(request.operationId, "0a-op#c");
    await end();
  });

  it("is released when the work throws, and its error goes on", async () => {
    const broken = new Error("the work's own");
    await assert.rejects(
      client.withReservation(asked, () => Promise.reject(broken)),
      broken,
    );
    assert.equal(sent("release").length, 1);
    assert.equal(sent("commit").length, 0);
    await end();
  });

  it("is an error where it is refused and a helper needs it", async () => {
    service.answers.reserve = () => ({ ...granted(), allowed: false, refusedBy: "ten" });
    await assert.rejects(
      client.withReservation(asked, () => assert.fail("it must not run")),
      (error) => {
        assert(error instanceof QuotaExceededError);
        assert.equal(error.decision.refusedBy, "ten");
        return true;
      },
    );
    assert.equal((await client.reserve(asked)).allowed, false);
    await end();
  });

  it("is extended three times per ttl while work goes on", async () => {
    let beats = 0;
    let enough;
    const beaten = new Promise((resolve) => {
      enough = resolve;
    });
    service.answers.extendReservation = () => {
      beats += 1;
      if (beats === 3) {
        enough();
      }
      return { outcome: 4 };
    };
    await client.withReservation({ ...asked, ttlMs: 60 }, () => beaten);
    assert.deepEqual(sent("extendReservation")[0].request.ttl, {
      seconds: 0,
      nanos: 60_000_000,
    });
    await end();
  });

  it("that is gone when the work is done is recorded by the ids of its commit", async () => {
    service.answers.commit = () => ({ outcome: 7, eventIds: [], ...settled });
    const held = await client.reserve(asked);
    const told = await held.commit({ amounts: [60, 0] });
    assert.equal(told.outcome, "EXPIRED");
    assert.equal(told.recordedAfter, true);
    const [{ request }] = sent("batchRecordUsage");
    assert.deepEqual(
      request.requests.map(({ eventId, operationId, meter, amount }) => [
        eventId,
        operationId,
        meter,
        amount,
      ]),
      [
        ["0a-op#c:0", "0a-op#c:0", "tokens", 50],
        ["0a-op#c:2", "0a-op#c:2", "tokens", 10],
      ],
    );
    assert.equal(await held.commit(), told);
    assert.equal(sent("batchRecordUsage").length, 1);
    await end();
  });

  it("that its holder has released is not recorded by a later commit", async () => {
    service.answers.commit = () => ({ outcome: 6, eventIds: [], ...settled });
    const held = await client.reserve(asked);
    await held.release();
    assert.equal((await held.commit()).recordedAfter, false);
    assert.equal(sent("batchRecordUsage").length, 0);
    await end();
  });

  it("releases itself at the end of its scope, unless it was settled", async () => {
    await (await client.reserve(asked))[Symbol.asyncDispose]();
    const held = await client.reserve(asked);
    await held.commit();
    await held[Symbol.asyncDispose]();
    assert.equal(sent("release").length, 1);
    await end();
  });

  it("refuses amounts that are not one per item", async () => {
    const held = await client.reserve(asked);
    await assert.rejects(held.commit({ amounts: [1] }), { field: "amounts" });
    await held.commit();
    await end();
  });

  it("passes on an error of its commit that is none of these", async () => {
    service.answers.commit = () => {
      throw refusal(status.NOT_FOUND, "no such meter");
    };
    service.answers.batchRecordUsage = ({ requests }) => ({
      results: requests.map(() => ({
        error: { reason: 5, code: status.NOT_FOUND, message: "unknown", field: "meter" },
      })),
    });
    const held = await client.reserve(asked);
    await assert.rejects(held.commit(), (error) => {
      assert(error instanceof NotFoundError);
      assert.equal(error.reason, "UNKNOWN_METER");
      assert.equal(error.field, "meter");
      return true;
    });
    await end();
  });
});
