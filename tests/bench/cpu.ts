import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Clock } from '../../common/clock.js';

/** Of /proc/PID/stat: USER_HZ, 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** CPU time that a process has taken, all its threads, ms; undefined: it has ended. */
export function cpuMs(pid: number): number | undefined {
  if (!existsSync(`/proc/${pid}/stat`)) return undefined;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}

/** Processes whose command line has these arguments in a row. */
export function processesOf(...args: string[]): number[] {
  return processesNaming(`\0${args.join('\0')}\0`);
}

/** Processes with this text in their command line, in which a zero byte ends each argument. */
export function processesNaming(wanted: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(wanted) ? [Number(name)] : [];
    } catch {
      return []; // ended meanwhile
    }
  });
}

/** CPU time of a workload and what comes before it (its preparation, mounting anew), by kind of process. */
export interface CpuLap {
  workload: string;
  wallMs: number;
  /** "metaserver-2" counts as metaserver. */
  cpuMs: Record<string, number>;
}

/** Takes the CPU time of a system's processes workload by workload. */
export class CpuMeter {
  readonly #pids: () => ReadonlyMap<string, number>;
  readonly #clock: Clock;
  #before = new Map<number, number>();
  #at: number;

  constructor(pids: () => ReadonlyMap<string, number>, clock: Clock) {
    this.#pids = pids;
    this.#clock = clock;
    this.#at = clock.now();
    this.lap('');
  }

  /** What has been used since the lap before. A process that ended meanwhile is not counted. */
  lap(workload: string): CpuLap {
    const now = this.#clock.now();
    const taken: CpuLap = { workload, wallMs: now - this.#at, cpuMs: {} };
    const before = this.#before;
    this.#before = new Map();
    this.#at = now;
    for (const [name, pid] of this.#pids()) {
      const ms = cpuMs(pid);
      if (ms === undefined) continue;
      this.#before.set(pid, ms);
      const kind = name.replace(/-\d+$/, '');
      taken.cpuMs[kind] = (taken.cpuMs[kind] ?? 0) + ms - (before.get(pid) ?? 0);
    }
    return taken;
  }
}
