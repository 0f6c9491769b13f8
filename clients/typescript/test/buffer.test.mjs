// Usage that is recorded without waiting: sent once each, through outages, damage and restarts.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { status } from "@grpc/grpc-js";
import { BufferFullError, Client, ClosedError } from "@tallygate/client";
import { commitEntry, payloadOf } from "../dist/buffer-entry.js";
import { Spool } from "../dist/spool.js";
import { accepted, fakeService, refusal } from "./fake-service.mjs";

const event = (more = {}) => ({ tenant: "acme", meter: "tokens", amount: 1, ...more });

describe("the buffer", () => {
  let service;
  let folder;
  const clients = [];

  beforeEach(async () => {
    folder = fs.mkdtempSync(join(tmpdir(), "tg-"));
    service = await fakeService({ batchRecordUsage: accepted });
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.close(0)));
    service.stop();
    fs.rmSync(folder, { recursive: true });
  });
  const clientWith = (buffer, more = {}) => {
    const client = new Client({ target: service.target, retry: false, buffer, ...more });
    clients.push(client);
    return client;
  };
  const sentIds = () =>
    service.calls
      .filter(({ name }) => name === "batchRecordUsage")
      .flatMap(({ request }) => request.requests.map(({ eventId }) => eventId));

  it("sends what it accepted, in lists of the size that is set", async () => {
    const told = [];
    const hooks = { onBuffer: (pending) => told.push(pending) };
    const client = clientWith({ batch: 2 }, { hooks });
    const at = new Date(1_700_000_000_123);
    const ids = [1, 2, 3, 4, 5].map((n) =>
      client.buffer.record(event({ amount: n, eventTime: at, metadata: { deep: [n, null] } })),
    );
    assert.equal(new Set(ids).size, 5);
    assert.equal(await client.buffer.flush(), true);
    assert.deepEqual(sentIds(), ids);
    assert.deepEqual(
      service.calls.map(({ request }) => request.requests.length),
      [2, 2, 1],
    );
    const [sent] = service.calls[0].request.requests;
    assert.deepEqual(sent.eventTime, { seconds: 1_700_000_000, nanos: 123_000_000 });
    assert.deepEqual(sent.metadata, { deep: [1, null] });
    const { recorded, sent: count, pending } = client.stats();
    assert.deepEqual([recorded, count, pending], [5, 5, 0]);
    assert.equal(told.at(-1), 0);
  });

  it("refuses what does not fit, and says so", async () => {
    service.answers.batchRecordUsage = () => new Promise(() => undefined);
    const client = clientWith({ maxEvents: 2 });
    client.buffer.record(event());
    client.buffer.record(event());
    assert.throws(() => client.buffer.record(event()), BufferFullError);
    assert.equal(client.stats().refusedFull, 1);
    assert.equal(await client.close(1), false);
    assert.equal(client.stats().pending, 2);
    assert.throws(() => client.buffer.record(event()), ClosedError);
  });

  it("sends again what was not answered, under the same ids", async () => {
    const failures = [status.UNAVAILABLE, status.CANCELLED, status.DEADLINE_EXCEEDED];
    service.answers.batchRecordUsage = (request) => {
      const code = failures.shift();
      if (code !== undefined) {
        throw refusal(code, "no", { "grpc-retry-pushback-ms": "1" });
      }
      return accepted(request);
    };
    const client = clientWith({});
    const id = client.buffer.record(event());
    assert.equal(await client.buffer.flush(), true);
    assert.deepEqual(sentIds(), [id, id, id, id]);
    assert.equal(client.stats().retries, 3);
  });

  it("does not come back before the pushback, even for a flush", async () => {
    const times = [];
    service.answers.batchRecordUsage = (request) => {
      times.push(performance.now());
      if (times.length === 1) {
        throw refusal(status.UNAVAILABLE, "busy", { "grpc-retry-pushback-ms": "250" });
      }
      return accepted(request);
    };
    const client = clientWith({ flushMs: 1 });
    client.buffer.record(event());
    assert.equal(await client.buffer.flush(20), false);
    assert.equal(await client.buffer.flush(), true);
    assert.ok(times[1] - times[0] >= 249);
  });

  it("tells of what is refused for good, while its neighbours pass", async () => {
    const told = [];
    const hooks = { onRejected: (rejected, error) => told.push([rejected, error.reason]) };
    let again = true;
    service.answers.batchRecordUsage = (request) => ({
      results: request.requests.map(({ eventId, meter }) => {
        if (meter === "nothing") {
          return { error: { reason: 5, code: 5, message: "unknown", field: "meter" } };
        }
        if (meter === "later" && again) {
          again = false;
          const retryAfter = { seconds: 0, nanos: 1_000_000 };
          return {
            error: { reason: 10, code: 14, message: "away", field: "", retryAfter },
          };
        }
        return { response: { eventId, replayed: true, durability: 3, degraded: false } };
      }),
    });
    const client = clientWith({ spoolDir: folder }, { hooks });
    client.buffer.record(event({ meter: "nothing", eventId: "bad", amount: 7 }));
    client.buffer.record(event({ meter: "later" }));
    client.buffer.record(event());
    assert.equal(await client.buffer.flush(), true);
    const rejected = { kind: "usage", tenant: "acme", id: "bad", meter: "nothing", amount: 7 };
    assert.deepEqual(told, [[rejected, "UNKNOWN_METER"]]);
    const stats = client.stats();
    assert.deepEqual([stats.rejected, stats.sent, stats.replayed], [1, 2, 2]);
    assert.equal(stats.spoolBytes, 0);
  });

  it("finds the one event for which a whole list was refused", async () => {
    service.answers.batchRecordUsage = (request) => {
      if (request.requests.some(({ eventId }) => eventId === "bad")) {
        throw refusal(status.INVALID_ARGUMENT);
      }
      return accepted(request);
    };
    const client = clientWith({});
    for (let n = 0; n < 9; n += 1) {
      client.buffer.record(event({ eventId: n === 4 ? "bad" : `e${n}` }));
    }
    assert.equal(await client.buffer.flush(), true);
    const { sent, rejected } = client.stats();
    assert.deepEqual([sent, rejected], [8, 1]);
  });

  it("records what it let pass without an answer as the service would name it", async () => {
    service.answers.checkAndConsume = () => {
      throw refusal(status.UNAVAILABLE);
    };
    const client = clientWith({}, { onAbsent: "open" });
    const items = [
      { meter: "tokens", amount: 3, dimensions: { model: "m" } },
      { meter: "requests", amount: 1 },
    ];
    const context = { subjectId: "ann" };
    const asked = { tenant: "acme", items, operationId: "op", context };
    const decision = await client.checkAndConsume(asked);
    assert.deepEqual(decision.eventIds, ["op:0", "op:1"]);
    await client.buffer.flush();
    const [first] = service.calls.at(-1).request.requests;
    assert.equal(first.operationId, "op:0");
    assert.equal(first.context.subjectId, "ann");
    assert.deepEqual(first.dimensions, { model: "m" });
  });

  it("carries on a commit that got no answer, and records it where that comes too late", async () => {
    const unset = { limits: [], refusedBy: "", unrecorded: [], durability: 0, eventIds: [] };
    service.answers.reserve = () => ({ allowed: true, limits: [], reservationId: "r-1" });
    const outcomes = [14, 7];
    service.answers.commit = () => {
      const next = outcomes.shift();
      if (next === 14) {
        throw refusal(status.UNAVAILABLE);
      }
      return { outcome: next, replayed: false, ...unset };
    };
    const client = clientWith({ spoolDir: folder });
    const held = await client.reserve({ tenant: "acme", items: { tokens: 5 } });
    assert.equal((await held.commit({ amounts: [7] })).outcome, "BUFFERED");
    assert.equal(await client.buffer.flush(), true);
    assert.deepEqual(sentIds(), ["r-1#c:0", "r-1#c:1"]);
    assert.equal(client.stats().spoolBytes, 0);
  });

  it("sends what another process has left, in that one's very bytes", async () => {
    const spool = new Spool(folder, { syncMs: 0, maxBytes: 1 << 20 });
    // An event of another language's client: microseconds, and a field that is not known here.
    const given = Buffer.from(
      "0a0461636d6512016d18012201653206" + "0880e2cfaa06" + "a2060178",
      "hex",
    );
    spool.append(1, given);
    const request = {
      tenantId: "acme",
      reservationId: "r",
      amounts: [1],
      operationId: "r#c",
      excess: 2,
    };
    spool.append(...payloadOf(commitEntry(request, [])));
    spool.append(99, given);
    spool.close();
    const unset = { limits: [], refusedBy: "", unrecorded: [], durability: 0, eventIds: [] };
    service.answers.commit = () => ({ outcome: 1, replayed: false, ...unset });
    const client = clientWith({ spoolDir: folder });
    assert.equal(client.stats().pending, 2);
    assert.equal(client.stats().spoolTorn, 1);
    assert.equal(await client.buffer.flush(), true);
    assert.deepEqual(sentIds(), ["e"]);
    assert.equal(service.calls.find(({ name }) => name === "commit").request.operationId, "r#c");
    assert.equal(client.stats().sent, 2);
  });

  it("loses nothing when its process is killed: the next one sends it", async () => {
    service.answers.batchRecordUsage = () => {
      throw refusal(status.UNAVAILABLE);
    };
    const script = `
      import { Client } from "@tallygate/client";
      const buffer = { spoolDir: process.argv[1] };
      const client = new Client({ target: process.argv[2], buffer });
      const usage = { tenant: "acme", meter: "tokens", amount: 1 };
      const ids = Array.from({ length: 100 }, () => client.buffer.record(usage));
      process.stdout.write(JSON.stringify(ids) + "\\n");
      setInterval(() => undefined, 1000);
    `;
    const killed = spawn(
      process.execPath,
      ["--input-type=module", "-e", script, folder, service.target],
      { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "inherit"] },
    );
    const [line] = await once(killed.stdout, "data");
    const ended = once(killed, "exit");
    killed.kill("SIGKILL");
    await ended;
    service.calls.length = 0;
    service.answers.batchRecordUsage = accepted;
    const client = clientWith({ spoolDir: folder });
    assert.equal(await client.buffer.flush(), true);
    assert.deepEqual(sentIds(), JSON.parse(line.toString()));
    assert.deepEqual(
      fs.readdirSync(folder).filter((name) => name !== "lock"),
      [],
    );
  });
});
