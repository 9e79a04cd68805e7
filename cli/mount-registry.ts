import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Which process serves which mount point of this machine: `umount` waits for that process to finish its work. */

function registryDir(): string {
  return process.getuid?.() === 0 ? '/run/holdfast' : join(tmpdir(), `holdfast-${process.getuid?.() ?? 0}`);
}

function entryPath(mountPoint: string): string {
  return join(registryDir(), `${createHash('sha256').update(mountPoint).digest('hex').slice(0, 24)}.json`);
}

export function registerMount(mountPoint: string, pid: number): void {
  mkdirSync(registryDir(), { recursive: true, mode: 0o755 });
  writeFileSync(entryPath(mountPoint), JSON.stringify({ mountPoint, pid }));
}

export function unregisterMount(mountPoint: string): void {
  rmSync(entryPath(mountPoint), { force: true });
}

/** The pid of the process that serves this mount point, when it is still there. */
export function mountProcess(mountPoint: string): number | undefined {
  try {
    const entry = JSON.parse(readFileSync(entryPath(mountPoint), 'utf8')) as { pid: number };
    process.kill(entry.pid, 0);
    return readFileSync(`/proc/${entry.pid}/cmdline`, 'utf8').includes('cli/main.js') ? entry.pid : undefined;
  } catch {
    return undefined;
  }
}
