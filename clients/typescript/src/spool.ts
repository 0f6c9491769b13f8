/**
 * buffer ─▶ [ spool ] ─▶ disk: what was accepted lies here until it is acknowledged.
 *
 * Guarantees that an entry is written before `append` returns, that what a process left is read by
 * the next, in any language, and that a segment goes once all of its entries are done. Refuses to
 * know what entries mean, and when they are done.
 *
 * Format: files `NNNNNNNNNNNNNNNN.spool` of records `u32 length, u32 CRC-32, payload`, little-endian;
 * the payload is a byte for its kind and a message. docs/clients.md has it in full.
 */

import * as fs from "node:fs";
import { join } from "node:path";
import { crc32 } from "./crc32.js";
import { BufferFullError, SpoolError } from "./errors.js";
import { lockFolder } from "./spool-lock.js";

const NAME = /^(\d{16})\.spool$/;
const HEAD_BYTES = 8;
/** Small enough that what is done goes soon, large enough that files are few. */
const SEGMENT_BYTES = 1 << 20;
const SEGMENT_AGE_MS = 10_000;
/** No entry is as large: a length beyond it is damage. */
const RECORD_BYTES_MAX = 16 << 20;

/** What an entry is. @internal */
export const Kind = { USAGE: 1, COMMIT: 2, COMMIT_WITH_FALLBACK: 3 } as const;

/** A file of the spool, and how many of its entries are not done. @internal */
export interface Segment {
  readonly path: string;
  fd: number | undefined;
  bytes: number;
  waiting: number;
  readonly madeAt: number;
  unsynced: boolean;
}

/** What an earlier process left. @internal */
export interface Left {
  readonly kind: number;
  readonly payload: Buffer;
  readonly segment: Segment;
}

/** How a spool is kept. @internal */
export interface SpoolOptions {
  readonly syncMs: number;
  readonly maxBytes: number;
}

/** A folder of entries. @internal */
export class Spool {
  readonly left: Left[] = [];
  torn = 0;
  bytes = 0;
  readonly #folder: string;
  readonly #options: SpoolOptions;
  readonly #unlock: () => void;
  #next = 1;
  #current: Segment | undefined;
  #syncTimer: NodeJS.Timeout | undefined;

  /** Open a folder and read what is in it. Throws `SpoolError` when another holds it. */
  constructor(folder: string, options: SpoolOptions) {
    this.#unlock = lockFolder(folder);
    this.#folder = folder;
    this.#options = options;
    try {
      this.#recover();
    } catch (error) {
      this.#unlock();
      throw new SpoolError(`the spool ${folder} cannot be read: ${String(error)}`, error);
    }
  }

  /** Write an entry; return the segment that holds it. */
  append(kind: number, message: Uint8Array): Segment {
    const record = recordOf(kind, message);
    if (this.bytes + record.length > this.#options.maxBytes) {
      throw new BufferFullError(`the spool holds ${this.bytes} bytes, and may hold no more`);
    }
    const segment = this.#writable();
    this.#write(segment, record);
    segment.bytes += record.length;
    segment.waiting += 1;
    this.bytes += record.length;
    this.#sync(segment);
    return segment;
  }

  /** One entry of the segment is done. */
  done(segment: Segment): void {
    segment.waiting -= 1;
    if (segment.waiting > 0) {
      return;
    }
    if (segment === this.#current) {
      this.#current = undefined;
    }
    this.bytes -= segment.bytes;
    try {
      if (segment.fd !== undefined) {
        fs.closeSync(segment.fd);
        segment.fd = undefined;
      }
      fs.rmSync(segment.path, { force: true });
    } catch {
      // What cannot be deleted is sent again by the next process, and counted once by its ids.
    }
  }

  /** Sync what is written and let go of the folder. What is not done stays in it. */
  close(): void {
    clearTimeout(this.#syncTimer);
    if (this.#current !== undefined) {
      seal(this.#current);
      this.#current = undefined;
    }
    this.#unlock();
  }

  #writable(): Segment {
    const current = this.#current;
    if (
      current !== undefined &&
      (current.bytes >= SEGMENT_BYTES || Date.now() - current.madeAt >= SEGMENT_AGE_MS)
    ) {
      seal(current);
      this.#current = undefined;
    }
    this.#current ??= this.#segment();
    return this.#current;
  }

  #segment(): Segment {
    const path = join(this.#folder, `${String(this.#next).padStart(16, "0")}.spool`);
    try {
      const fd = fs.openSync(path, "wx", 0o600);
      this.#next += 1;
      return { path, fd, bytes: 0, waiting: 0, madeAt: Date.now(), unsynced: true };
    } catch (error) {
      throw new SpoolError(`the spool cannot be written: ${String(error)}`, error);
    }
  }

  #write(segment: Segment, record: Buffer): void {
    const fd = segment.fd as number;
    try {
      for (let at = 0; at < record.length;) {
        at += fs.writeSync(fd, record, at, record.length - at, segment.bytes + at);
      }
    } catch (error) {
      // A full disk: what was written of it must not stand before the next entry.
      fs.ftruncateSync(fd, segment.bytes);
      throw new SpoolError(`the spool cannot be written: ${String(error)}`, error);
    }
  }

  #sync(segment: Segment): void {
    segment.unsynced = true;
    if (this.#options.syncMs === 0) {
      fs.fsyncSync(segment.fd as number);
      if (segment.waiting === 1) {
        syncFolder(this.#folder);
      }
      segment.unsynced = false;
      return;
    }
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      const current = this.#current;
      if (current?.fd !== undefined && current.unsynced) {
        current.unsynced = false;
        // Beside the loop. A segment that is done meanwhile is gone, and nobody's loss.
        fs.fsync(current.fd, () => undefined);
        fs.open(this.#folder, "r", (failed, fd) => {
          if (failed === null) {
            fs.fsync(fd, () => fs.close(fd));
          }
        });
      }
    }, this.#options.syncMs).unref();
  }

  #recover(): void {
    const names = fs.readdirSync(this.#folder).filter((name) => NAME.test(name));
    for (const name of names.sort()) {
      this.#next = Number(name.slice(0, 16)) + 1;
      const path = join(this.#folder, name);
      const content = fs.readFileSync(path);
      const { payloads, end } = recordsOf(content);
      if (end < content.length) {
        this.torn += 1;
        setAside(path, content, end);
      }
      if (payloads.length === 0) {
        fs.rmSync(path, { force: true });
        continue;
      }
      const waiting = payloads.length;
      const segment = {
        path,
        fd: undefined,
        bytes: end,
        waiting,
        madeAt: 0,
        unsynced: false,
      };
      this.bytes += end;
      for (const payload of payloads) {
        this.left.push({
          kind: payload[0] as number,
          payload: payload.subarray(1),
          segment,
        });
      }
    }
  }
}

/** Return an entry as it lies on disk. @internal */
export function recordOf(kind: number, message: Uint8Array): Buffer {
  const record = Buffer.allocUnsafe(HEAD_BYTES + 1 + message.length);
  record.writeUInt32LE(1 + message.length, 0);
  record[HEAD_BYTES] = kind;
  record.set(message, HEAD_BYTES + 1);
  record.writeUInt32LE(crc32(record.subarray(HEAD_BYTES)), 4);
  return record;
}

/** Return the whole records at the beginning of a file, and where they end. @internal */
export function recordsOf(content: Buffer): { payloads: Buffer[]; end: number } {
  const payloads: Buffer[] = [];
  let end = 0;
  while (end + HEAD_BYTES <= content.length) {
    const length = content.readUInt32LE(end);
    const from = end + HEAD_BYTES;
    if (length === 0 || length > RECORD_BYTES_MAX || from + length > content.length) {
      break;
    }
    const payload = content.subarray(from, from + length);
    if (crc32(payload) !== content.readUInt32LE(end + 4)) {
      break;
    }
    payloads.push(payload);
    end = from + length;
  }
  return { payloads, end };
}

/** Cut off what cannot be read. Where it is more than a write cut short, keep it for a person. */
function setAside(path: string, content: Buffer, end: number): void {
  if (!isCutShort(content, end)) {
    fs.writeFileSync(path.replace(/\.spool$/, ".bad"), content.subarray(end), { flag: "w" });
  }
  fs.truncateSync(path, end);
}

function isCutShort(content: Buffer, end: number): boolean {
  if (content.length < end + HEAD_BYTES) {
    return true;
  }
  const length = content.readUInt32LE(end);
  // With nothing behind it, a record whose checksum is wrong is one whose bytes had not all come.
  return length <= RECORD_BYTES_MAX && end + HEAD_BYTES + length >= content.length;
}

function seal(segment: Segment): void {
  if (segment.fd === undefined) {
    return;
  }
  if (segment.unsynced) {
    fs.fsyncSync(segment.fd);
  }
  fs.closeSync(segment.fd);
  segment.fd = undefined;
}

function syncFolder(folder: string): void {
  try {
    const fd = fs.openSync(folder, "r");
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // Not every system lets a folder be synced. The file's own bytes are.
  }
}
