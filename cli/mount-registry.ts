import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Unwritten } from '../client/vfs/vfs.js';
import { isHoldfast } from './run-files.js';

/** Which process serves which mount point of this machine: `umount` waits for that process to finish its work. */

function registryDir(): string {
  return process.getuid?.() === 0 ? '/run/holdfast' : join(tmpdir(), `holdfast-${process.getuid?.() ?? 0}`);
}

function entryPath(mountPoint: string): string {
  return join(registryDir(), `${createHash('sha256').update(mountPoint).digest('hex').slice(0, 24)}.json`);
}

interface Registered {
  mountPoint: string;
  pid: number;
  ending?: EndingNote;
}

/** What the process of a mount says while somebody waits for its end. */
export interface EndingNote {
  /** One more with each note: the process lives. */
  beat: number;
  unwritten: Unwritten;
  /** The process has ended, or does so now, and what is unwritten is lost. */
  givenUp: boolean;
}

export function registerMount(mountPoint: string, pid: number, ending?: EndingNote): void {
  mkdirSync(registryDir(), { recursive: true, mode: 0o755 });
  const path = entryPath(mountPoint);
  const entry: Registered = { mountPoint, pid, ...(ending && { ending }) };
  writeFileSync(`${path}.${pid}`, JSON.stringify(entry));
  renameSync(`${path}.${pid}`, path); // nobody reads half of it
}

/** What the process with this pid said last of the end of its mount; undefined: nothing. */
export function endingNote(mountPoint: string, pid: number): EndingNote | undefined {
  try {
    const entry = JSON.parse(readFileSync(entryPath(mountPoint), 'utf8')) as Registered;
    return entry.pid === pid ? entry.ending : undefined;
  } catch {
    return undefined;
  }
}

export function unregisterMount(mountPoint: string): void {
  rmSync(entryPath(mountPoint), { force: true });
}

/** The pid of the process that serves this mount point, when it is still there. */
export function mountProcess(mountPoint: string): number | undefined {
  try {
    const entry = JSON.parse(readFileSync(entryPath(mountPoint), 'utf8')) as Registered;
    process.kill(entry.pid, 0);
    return isHoldfast(entry.pid) ? entry.pid : undefined;
  } catch {
    return undefined;
  }
}
