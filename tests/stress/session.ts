import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock, type Timer } from '../../common/clock.js';
import { temporaryDirectory } from '../lab/directories.js';
import type { Lab } from '../lab/lab.js';
import { monotonicMs } from '../lab/monotonic.js';
import type { MemoryRecord, StressRun } from './record.js';

const MEMORY_INTERVAL_MS = 1_000;

/** What a run has besides its cluster: its clock, its record, samples of memory, a directory for fio's logs. */
export class StressSession {
  readonly lab: Lab;
  readonly run: StressRun;
  readonly logDir: string;
  readonly #say: (line: string) => void;
  readonly #began = monotonicMs();
  readonly #wallOffsetMs: number;
  readonly #memory = new Map<string, MemoryRecord>();
  #timer: Timer | undefined;

  constructor(lab: Lab, run: StressRun, say: (line: string) => void) {
    this.lab = lab;
    this.run = run;
    this.#say = say;
    this.logDir = temporaryDirectory('stress-logs');
    const { sec, nsec } = systemClock.wall();
    this.#wallOffsetMs = sec * 1000 + nsec / 1e6 - this.#began;
  }

  start(): void {
    this.#timer = systemClock.every(MEMORY_INTERVAL_MS, () => this.#sampleMemory());
  }

  /** Milliseconds since the run began. */
  now(): number {
    return this.fromMonotonic(monotonicMs());
  }

  fromMonotonic(ms: number): number {
    return ms - this.#began;
  }

  /** @param ms since 1970, as in fio's logs */
  fromWall(ms: number): number {
    return ms - this.#wallOffsetMs - this.#began;
  }

  say(line: string): void {
    this.#say(`${(this.now() / 1000).toFixed(1).padStart(7)} s  ${line}`);
  }

  fail(line: string): void {
    this.run.failures.push(line);
    this.say(`FAILED: ${line}`);
  }

  /** The directory of that name in a client's mount. */
  path(client: string, name: string): string {
    return join(this.lab.mountPoint(client), name);
  }

  close(): void {
    this.#timer?.cancel();
    this.run.seconds = this.now() / 1000;
    this.run.memory = [...this.#memory.values()];
    rmSync(this.logDir, { recursive: true, force: true });
  }

  #sampleMemory(): void {
    for (const [name, bytes] of this.lab.memory()) {
      const record = this.#memory.get(name);
      if (!record) this.#memory.set(name, { name, firstBytes: bytes, peakBytes: bytes, lastBytes: bytes });
      else {
        record.lastBytes = bytes;
        record.peakBytes = Math.max(record.peakBytes, bytes);
      }
    }
  }
}
