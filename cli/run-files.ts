import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** DATA/run: which processes of a cluster run on this machine. */

/** The longest path that a Unix socket takes on Linux (unix(7): 108 bytes with the final NUL). */
const SOCKET_PATH_MAX_BYTES = 107;

export function pidFile(dataDir: string, name: string): string {
  return join(dataDir, 'run', `${name}.pid`);
}

export function logFile(dataDir: string, name: string): string {
  return join(dataDir, 'log', `${name}.log`);
}

/** Where a running `up` takes commands. A data directory with a long path gets a socket in the temporary directory. */
export function controlSocket(dataDir: string): string {
  const path = join(dataDir, 'run', 'control.sock');
  if (Buffer.byteLength(path) <= SOCKET_PATH_MAX_BYTES) return path;
  const digest = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  return join(tmpdir(), `holdfast-${digest}.sock`);
}

export function writePid(path: string, pid: number): void {
  writeFileSync(path, `${pid}\n`);
}

export function removePid(path: string): void {
  rmSync(path, { force: true });
}

/** Whether this is the pid of a process that runs and is one of ours: a note of a pid may outlive its process. */
export function isHoldfast(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('cli/main.js');
  } catch {
    return false;
  }
}

/** The pid in a pid file; undefined: no process of ours has it. */
export function readLivePid(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'utf8').trim());
    return isHoldfast(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** A process that has ended and that nobody has asked about yet is no longer alive. */
export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}/exe`) && signal(pid, 0);
}

/** @returns false when there is no such process any more, or it is another user's */
export function signal(pid: number, what: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, what);
  } catch {
    return false;
  }
}
