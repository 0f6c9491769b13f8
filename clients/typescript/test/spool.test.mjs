// What lies on disk: its format, what is read of a damaged one, and who may hold it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { crc32 } from "../dist/crc32.js";
import { Kind, recordOf, recordsOf, Spool } from "../dist/spool.js";
import { lockFolder } from "../dist/spool-lock.js";

const OPTIONS = { syncMs: 0, maxBytes: 1 << 20 };
const message = (text) => Buffer.from(text);

describe("a spool", () => {
  let folder;

  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), "tg-"));
  });
  afterEach(() => fs.rmSync(folder, { recursive: true }));
  const files = () => fs.readdirSync(folder).sort();
  const lefts = (spool) => spool.left.map(({ payload }) => payload.toString());

  it("writes the format that all languages read", () => {
    const spool = new Spool(folder, OPTIONS);
    spool.append(Kind.USAGE, message("ab"));
    spool.close();
    assert.deepEqual(files(), ["0000000000000001.spool"]);
    const written = fs.readFileSync(join(folder, files()[0]));
    // Length 3; the CRC-32 of 01 61 62; the kind; the message.
    assert.equal(written.toString("hex"), `03000000${crcHex("016162")}016162`);
    assert.equal(crc32(Buffer.from("123456789")), 0xcbf43926);
  });

  it("gives the next one what was not done, in order", () => {
    const first = new Spool(folder, OPTIONS);
    const segments = ["a", "b", "c"].map((text) => first.append(Kind.USAGE, message(text)));
    first.done(segments[1]);
    first.close();
    const next = new Spool(folder, OPTIONS);
    assert.deepEqual(lefts(next), ["a", "b", "c"]);
    assert.equal(next.torn, 0);
    next.close();
  });

  it("deletes a segment once all of its entries are done", () => {
    const spool = new Spool(folder, OPTIONS);
    const [one, other] = ["a", "b"].map((text) => spool.append(Kind.USAGE, message(text)));
    spool.done(one);
    assert.equal(files().length, 2);
    spool.done(other);
    assert.deepEqual(files(), ["lock"]);
    assert.equal(spool.bytes, 0);
    spool.append(Kind.USAGE, message("c"));
    assert.deepEqual(files(), ["0000000000000002.spool", "lock"]);
    spool.close();
  });

  it("reads every whole entry before a cut, wherever that is", () => {
    const records = ["first", "second", "third"].map((text) => recordOf(Kind.USAGE, message(text)));
    const whole = Buffer.concat(records);
    const path = join(folder, "0000000000000007.spool");
    for (let cut = 0; cut <= whole.length; cut += 1) {
      fs.writeFileSync(path, whole.subarray(0, cut));
      const spool = new Spool(folder, OPTIONS);
      const ends = [records[0].length, records[0].length + records[1].length, whole.length];
      const expected = ends.filter((end) => end <= cut).length;
      assert.equal(spool.left.length, expected, `cut at ${cut}`);
      assert.equal(spool.torn, cut === 0 || ends.includes(cut) ? 0 : 1, `cut at ${cut}`);
      assert.deepEqual(
        files().filter((name) => name.endsWith(".bad")),
        [],
      );
      spool.close();
      fs.rmSync(path, { force: true });
    }
  });

  it("sets aside what follows a damaged entry", () => {
    const records = ["first", "second", "third"].map((text) => recordOf(Kind.USAGE, message(text)));
    const whole = Buffer.concat(records);
    whole[records[0].length + 9] ^= 1;
    fs.writeFileSync(join(folder, "0000000000000001.spool"), whole);
    const spool = new Spool(folder, OPTIONS);
    assert.deepEqual(lefts(spool), ["first"]);
    assert.equal(spool.torn, 1);
    const bad = fs.readFileSync(join(folder, "0000000000000001.bad"));
    assert.deepEqual(bad, whole.subarray(records[0].length));
    spool.close();
    const next = new Spool(folder, OPTIONS);
    assert.equal(next.torn, 0);
    next.close();
  });

  it("does not take a length for an amount of memory", () => {
    const { payloads, end } = recordsOf(Buffer.from("ffffffff00000000", "hex"));
    assert.deepEqual([payloads.length, end], [0, 0]);
  });

  it("refuses more than it may hold, and holds no part of it", () => {
    const spool = new Spool(folder, { syncMs: 0, maxBytes: 30 });
    spool.append(Kind.USAGE, message("0123456789"));
    assert.throws(() => spool.append(Kind.USAGE, message("0123456789")), {
      kind: "BufferFull",
    });
    spool.close();
    const next = new Spool(folder, OPTIONS);
    assert.deepEqual(lefts(next), ["0123456789"]);
    next.close();
  });

  it("begins a new segment when one is full", () => {
    const spool = new Spool(folder, { syncMs: 100, maxBytes: 4 << 20 });
    const large = Buffer.alloc(700_000);
    for (let count = 0; count < 3; count += 1) {
      spool.append(Kind.USAGE, large);
    }
    assert.equal(files().filter((name) => name.endsWith(".spool")).length, 2);
    spool.close();
  });
});

describe("a spool's lock", () => {
  let folder;

  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), "tg-"));
  });
  afterEach(() => fs.rmSync(folder, { recursive: true }));
  const path = () => join(folder, "lock");
  const ticks = (pid) => {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  };

  it("says who holds it, and goes when it is given back", () => {
    const unlock = lockFolder(folder);
    assert.equal(fs.readFileSync(path(), "utf8"), `${process.pid} ${ticks(process.pid)}\n`);
    assert.throws(() => lockFolder(folder), { kind: "SpoolInUse" });
    unlock();
    assert.deepEqual(fs.readdirSync(folder), []);
    lockFolder(folder)();
  });

  it("is refused while another process lives, whatever its language", async () => {
    const other = spawn("cat");
    fs.writeFileSync(path(), `${other.pid} ${ticks(other.pid)}\n`);
    assert.throws(() => lockFolder(folder), { kind: "SpoolInUse" });
    const ended = new Promise((resolve) => other.once("exit", resolve));
    other.kill("SIGKILL");
    await ended;
    lockFolder(folder)();
  });

  it("is refused to another thread or copy of this process", () => {
    fs.writeFileSync(path(), `${process.pid} ${ticks(process.pid)}\n`);
    assert.throws(() => lockFolder(folder), { kind: "SpoolInUse" });
    assert.equal(fs.readFileSync(path(), "utf8"), `${process.pid} ${ticks(process.pid)}\n`);
  });

  for (const [what, line] of [
    ["a process of another start", `${process.pid} 1\n`],
    ["nobody", ""],
    ["nonsense", "what is this?\n"],
  ]) {
    it(`is taken over from ${what}`, () => {
      fs.writeFileSync(path(), line);
      const unlock = lockFolder(folder);
      assert.deepEqual(fs.readdirSync(folder), ["lock"]);
      unlock();
    });
  }
});

function crcHex(hex) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(crc32(Buffer.from(hex, "hex")));
  return bytes.toString("hex");
}
