import type { Clock, Timer, Timespec } from '../common/clock.js';

/** The clock of a mount, which counts how often the time of day was taken from it for something in the file system. */
export class FileClock implements Clock {
  readonly #clock: Clock;
  #taken = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How often so far, by a server for a change that this mount asked for included. */
  get taken(): number {
    return this.#taken;
  }

  /** A server takes the time of a change. */
  takenElsewhere(): void {
    this.#taken++;
  }

  now(): number {
    return this.#clock.now();
  }

  wall(): Timespec {
    this.#taken++;
    return this.#clock.wall();
  }

  after(ms: number, fn: () => void, options?: { weak?: boolean }): Timer {
    return this.#clock.after(ms, fn, options);
  }

  every(ms: number, fn: () => void, options?: { weak?: boolean }): Timer {
    return this.#clock.every(ms, fn, options);
  }
}
