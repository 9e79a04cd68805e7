import type { Verdict } from './consistency.js';
import type { FioResult } from './fio.js';

/** What a run of the stress suite found. All times are milliseconds since the run began. */

export interface FaultRecord {
  name: string;
  victim: string;
  beganMs: number;
  undoneMs: number;
  /** When the cluster was healthy again. */
  healthyMs: number;
  /** The longest fsync of the probe from the fault's begin until the cluster was healthy again. */
  stallMs: number;
  /** Bytes that were copied to a server which had lost its disk. */
  copiedBytes?: number;
}

export interface RoundRecord {
  number: number;
  beganMs: number;
  endedMs: number;
  written: FioResult;
  /** Read back after the round, from the other mount, with cold caches. */
  verified: FioResult;
  verdict: Verdict;
  /** Operations of the probe. */
  synced: number;
  fsck: 'clean' | 'not there' | 'not clean';
}

export interface Point {
  atMs: number;
  value: number;
}

export interface MemoryRecord {
  name: string;
  firstBytes: number;
  peakBytes: number;
  lastBytes: number;
}

/** Stalls of one kind of fault, by themselves: no other load. */
export interface StallRecord {
  name: string;
  targetMs: number;
  stallsMs: number[];
}

/** A chunkserver that lost its disk, by itself and beside a writer. */
export interface WipedRecord {
  /** With nothing else to do. */
  refills: {
    beganMs: number;
    endedMs: number;
    /** From its start until every group was in-sync. */
    seconds: number;
    bytes: number;
    mbps: number;
  }[];
  /** MB/s of the writer while the server was filled, and before and after it. */
  beside:
    | { refill: WipedRecord['refills'][number]; aloneMbps: number; besideMbps: number; ratio: number }
    | undefined;
  targetS: number;
}

/** A scenario that is no round: what it says of itself. */
export interface ScriptRecord {
  name: string;
  lines: string[];
}

export interface StressRun {
  command: string;
  machine: string;
  seed: number;
  seconds: number;
  faults: FaultRecord[];
  rounds: RoundRecord[];
  stalls: StallRecord[];
  scripts: ScriptRecord[];
  wiped?: WipedRecord;
  memory: MemoryRecord[];
  /** MiB/s that fio wrote. */
  throughput: Point[];
  /** Mean latency of fio's writes, ms. */
  latency: Point[];
  /** The probe's longest fsync in each second, ms. */
  fsync: Point[];
  /** Why it failed; empty: it did not. */
  failures: string[];
}

export function newRun(command: string, machine: string, seed: number): StressRun {
  return {
    ...{ command, machine, seed, seconds: 0 },
    ...{ faults: [], rounds: [], stalls: [], scripts: [], memory: [] },
    ...{ throughput: [], latency: [], fsync: [], failures: [] },
  };
}

/** A process may hold so much at any time. */
export const MEMORY_MAX_BYTES = 1024 * 1024 * 1024;

/** Adds what speaks against the run as a whole: it proved nothing, or memory grew without bound. */
export function concludeRun(run: StressRun): void {
  const sum = (of: (round: RoundRecord) => number): number =>
    run.rounds.reduce((total, round) => total + of(round), 0);
  if (run.rounds.length > 0) {
    if (run.faults.length === 0) run.failures.push('proved nothing: no fault happened');
    if (sum((round) => round.verified.bytesVerified) === 0)
      run.failures.push('proved nothing: no byte was verified');
    if (sum((round) => round.synced) === 0) run.failures.push('proved nothing: no fsync was watched');
    if (sum((round) => Math.min(round.verdict.reads, round.verdict.claims)) === 0)
      run.failures.push('proved nothing: no two clients used the same file');
  }
  if (run.rounds.length + run.stalls.length + run.scripts.length === 0 && !run.wiped)
    run.failures.push('proved nothing: nothing ran');
  for (const { name, peakBytes } of run.memory)
    if (peakBytes > MEMORY_MAX_BYTES)
      run.failures.push(`${name} held ${Math.round(peakBytes / 2 ** 20)} MiB of memory`);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length === 0 ? Number.NaN : (sorted[sorted.length >> 1] as number);
}
