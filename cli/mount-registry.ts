import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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

/** A mount of this machine. */
export interface LocalMount {
  mountPoint: string;
  pid: number;
  clusterId: string;
  /** Where its process, in the background, writes its log. */
  log?: string;
}

interface Registered extends LocalMount {
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

/** Notes who serves a mount point, in the place of what was noted before. @param ending how far its end is */
export function registerMount(mount: LocalMount, ending?: EndingNote): void {
  mkdirSync(registryDir(), { recursive: true, mode: 0o755 });
  const path = entryPath(mount.mountPoint);
  const entry: Registered = { ...mount, ...(ending && { ending }) };
  writeFileSync(`${path}.${mount.pid}`, JSON.stringify(entry));
  renameSync(`${path}.${mount.pid}`, path); // nobody reads half of it
}

/** The mounts of a cluster that processes of this user serve on this machine. */
export function mountsOfCluster(clusterId: string): LocalMount[] {
  let names: string[];
  try {
    names = readdirSync(registryDir());
  } catch {
    return []; // nothing was ever mounted
  }
  return names
    .filter((name) => name.endsWith('.json'))
    .flatMap((name) => readEntry(join(registryDir(), name)) ?? [])
    .filter((one) => one.clusterId === clusterId && isHoldfast(one.pid));
}

function readEntry(path: string): Registered | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Registered;
  } catch {
    return undefined;
  }
}

/** What the process with this pid said last of the end of its mount; undefined: nothing. */
export function endingNote(mountPoint: string, pid: number): EndingNote | undefined {
  const entry = readEntry(entryPath(mountPoint));
  return entry?.pid === pid ? entry.ending : undefined;
}

/** Nobody serves it any more. */
export function unregisterMount(mountPoint: string): void {
  rmSync(entryPath(mountPoint), { force: true });
}

/** Who serves this mount point, when that process is still there. */
export function localMount(mountPoint: string): LocalMount | undefined {
  const entry = readEntry(entryPath(mountPoint));
  return entry && isHoldfast(entry.pid) ? entry : undefined;
}
