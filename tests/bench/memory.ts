import { existsSync, readFileSync } from 'node:fs';

/** Resident memory of processes, bytes. */
export function residentMemory(pids: ReadonlyMap<string, number>): Map<string, number> {
  const memory = new Map<string, number>();
  for (const [name, pid] of pids) {
    if (!existsSync(`/proc/${pid}`)) continue;
    const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    memory.set(name, Number(kib ?? 0) * 1024);
  }
  return memory;
}

/** Resident memory that is not page cache (files that are mapped, LMDB's among them, are), MiB. */
export function anonymousMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
  return (kib('RssAnon') + kib('RssShmem')) / 1024;
}
