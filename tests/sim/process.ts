import type { Clock, Timer, Timespec } from '../../common/clock.js';
import type { VirtualClock } from '../chunkserver/pg/sim/virtual-clock.js';

/** Well behind 1970, as that of a machine. */
const WALL_START_SEC = 1_700_000_000;

interface Late {
  fn: () => void;
  kind: 'timer' | 'io';
}

/**
 * One life of a process: its timers and what reaches it. While it is paused everything waits; when it is dead nothing
 * happens any more, although promises of its last turn may still settle.
 */
export class SimProcess {
  readonly clock: Clock;
  readonly name: string;
  readonly #time: VirtualClock;
  /** Its wall clock is off by so much, seconds. */
  readonly #skewSec: number;
  #late: Late[] = [];
  #paused = false;
  alive = true;
  /** Called once, when the process dies. */
  readonly onDeath: (() => void)[] = [];

  /** @param rate its clock runs so much faster than true time; 1: as fast */
  constructor(name: string, time: VirtualClock, skewSec: number, rate: number) {
    this.name = name;
    this.#time = time;
    this.#skewSec = skewSec;
    this.clock = {
      now: () => time.now() * rate,
      wall: () => this.#wall(),
      after: (ms, fn) => time.after(ms / rate, () => this.run('timer', fn)),
      every: (ms, fn) => this.#every(ms, fn),
    };
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Runs `fn` in this process: now, after the pause, or never. */
  run(kind: Late['kind'], fn: () => void): void {
    if (!this.alive) return;
    if (this.#paused) this.#late.push({ fn, kind });
    else fn();
  }

  /** A later turn of the process's event loop. */
  soon(fn: () => void): void {
    this.#time.after(0, () => this.run('io', fn));
  }

  pause(): void {
    this.#paused = true;
  }

  /** Timers that are due run before what waits in the sockets, as in Node. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const late = this.#late;
    this.#late = [];
    for (const kind of ['timer', 'io'] as const) {
      for (const { fn } of late.filter((each) => each.kind === kind)) {
        this.#time.after(0, () => this.run(kind, fn));
      }
    }
  }

  die(): void {
    if (!this.alive) return;
    this.alive = false;
    this.#late = [];
    for (const fn of this.onDeath.splice(0)) fn();
  }

  #wall(): Timespec {
    const { sec, nsec } = this.#time.wall();
    return { sec: WALL_START_SEC + sec + this.#skewSec, nsec };
  }

  #every(ms: number, fn: () => void): Timer {
    let timer: Timer;
    let over = false;
    const again = (): void => {
      timer = this.clock.after(ms, () => {
        if (over) return;
        again();
        fn();
      });
    };
    again();
    return {
      cancel: () => {
        over = true;
        timer.cancel();
      },
    };
  }
}
