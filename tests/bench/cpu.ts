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

/** CPU time that the whole machine has taken, ms: of programs and of the kernel, interrupts included. */
export function machineCpuMs(): number {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '';
  // proc_stat(5). Time in guests is in user and nice.
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line.split(/ +/).slice(1).map(Number);
  return ((user + nice + system + irq + softirq) * 1000) / TICKS_PER_SECOND;
}

/** CPU time of a workload by kind of process. */
export interface CpuLap {
  workload: string;
  wallMs: number;
  /** Of the machine: all its processes and its kernel. */
  machineMs: number;
  /** "metaserver-2" counts as metaserver. */
  cpuMs: Record<string, number>;
}

/** Takes the CPU time of a system's processes workload by workload. */
export class CpuMeter {
  readonly #pids: () => ReadonlyMap<string, number>;
  readonly #clock: Clock;
  readonly #before = new Map<number, number>();
  #machineBefore = 0;
  #at = 0;

  constructor(pids: () => ReadonlyMap<string, number>, clock: Clock) {
    this.#pids = pids;
    this.#clock = clock;
    this.begin();
  }

  /** A workload begins. */
  begin(): void {
    this.#at = this.#clock.now();
    this.#machineBefore = machineCpuMs();
    this.#before.clear();
    for (const pid of this.#pids().values()) this.#before.set(pid, cpuMs(pid) ?? 0);
  }

  /** What has been used since begin(). A process that ended meanwhile is not counted. */
  lap(workload: string): CpuLap {
    const wallMs = this.#clock.now() - this.#at;
    const taken: CpuLap = { workload, wallMs, machineMs: machineCpuMs() - this.#machineBefore, cpuMs: {} };
    for (const [name, pid] of this.#pids()) {
      const ms = cpuMs(pid);
      if (ms === undefined) continue;
      const kind = name.replace(/-\d+$/, '');
      taken.cpuMs[kind] = (taken.cpuMs[kind] ?? 0) + ms - (this.#before.get(pid) ?? 0);
    }
    return taken;
  }
}
