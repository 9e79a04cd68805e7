import { existsSync, readFileSync } from 'node:fs';

/** kill -9 of a process that may have ended already. */
export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone already
  }
}

export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** A number of /proc/PID/status, as proc(5) has it: memory in KiB. @throws Error when the process has ended */
export function statusNumber(pid: number, name: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
}

/** Resident memory of processes, bytes; of those that run. */
export function residentMemory(pids: ReadonlyMap<string, number>): Map<string, number> {
  const memory = new Map<string, number>();
  for (const [name, pid] of pids) {
    try {
      memory.set(name, statusNumber(pid, 'VmRSS') * 1024);
    } catch {
      // it ended meanwhile
    }
  }
  return memory;
}

/** Resident memory that is not page cache (files that are mapped, LMDB's among them, are), MiB. */
export function anonymousMib(pid: number): number {
  return (statusNumber(pid, 'RssAnon') + statusNumber(pid, 'RssShmem')) / 1024;
}
