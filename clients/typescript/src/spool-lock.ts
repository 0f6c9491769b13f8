/**
 * One process, and one client in it, per spool folder: the file `lock` in it.
 *
 * Guarantees that a folder which a living process of any language holds is refused, and one whose
 * holder has died is taken over. Node has no `fcntl`, so it takes part by the line `PID TICKS` in
 * the file, which clients in other languages write and read too. Refuses to know what is spooled.
 */

import {
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { threadId } from "node:worker_threads";
import { SpoolError, SpoolInUseError } from "./errors.js";

const TRIES_MAX = 5;
/** The fields of `/proc/PID/stat` after the command, which may hold spaces; field 22 in all. */
const START_TICKS = 22 - 3;

/** The folders this thread holds. The line in the file tells others, other threads too. */
const held = new Set<string>();

/** Hold a folder, which is made if need be; return what gives it back. @internal */
export function lockFolder(folder: string): () => void {
  mkdirSync(folder, { recursive: true });
  const real = realpathSync(folder);
  if (held.has(real)) {
    throw new SpoolInUseError(`the spool ${folder} is open in this process already`);
  }
  const path = join(real, "lock");
  const mine = `${process.pid} ${startTicks(process.pid)}\n`;
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (created(path, mine)) {
      held.add(real);
      return () => {
        held.delete(real);
        if (read(path) === mine) {
          unlinkSync(path);
        }
      };
    }
    clearDead(path, folder);
  }
  throw new SpoolInUseError(`the spool ${folder} is being opened by others`);
}

function created(path: string, line: string): boolean {
  try {
    writeFileSync(path, line, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      return false;
    }
    throw new SpoolError(`the spool's lock cannot be written: ${String(error)}`, error);
  }
}

/**
 * Set aside a lock whose holder has died. Of several who find it dead, one alone renames it; and
 * one who finds that it renamed a living holder's, who came in between, puts it back.
 */
function clearDead(path: string, folder: string): void {
  refuseLiving(read(path), folder);
  const aside = `${path}.${process.pid}.${threadId}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  try {
    refuseLiving(read(aside), folder);
  } catch (error) {
    try {
      linkSync(aside, path);
    } catch {
      // Somebody has made a new one: that one counts.
    }
    throw error;
  } finally {
    unlinkSync(aside);
  }
}

function refuseLiving(line: string, folder: string): void {
  const [pid, ticks] = line.trim().split(" ").map(Number);
  if (pid && isAlive(pid) && startTicks(pid) === (ticks ?? 0)) {
    throw new SpoolInUseError(`the spool ${folder} is held by process ${pid}`);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** When the process started, which tells it from a later one with its number; 0 if unknown. */
function startTicks(pid: number): number {
  const stat = read(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[START_TICKS] ?? 0);
}
