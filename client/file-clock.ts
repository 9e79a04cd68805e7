import type { Clock, Timer, Timespec } from '../common/clock.js';

/**
 * The clock of a mount. It remembers the newest time that something in the file system has, if a write took it and nobody
 * has seen it.
 */
export class FileClock implements Clock {
  readonly #clock: Clock;
  /** Undefined: something else may have a later one, or somebody may have seen it. */
  #write: { readonly time: Timespec; readonly at: number } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The newest time of all, always the same object, when a write took it less than `maxAgeMs` ago and nobody has seen it. */
  recentWrite(maxAgeMs: number): Timespec | undefined {
    const write = this.#write;
    return write && this.#clock.now() - write.at < maxAgeMs ? write.time : undefined;
  }

  /** The time of day for a write. */
  timeOfWrite(): Timespec {
    const time = this.#clock.wall();
    this.#write = { time, at: this.#clock.now() };
    return time;
  }

  /** Somebody was told these times of a file: whatever changes from now on has a later one. */
  seen(...times: readonly (Timespec | undefined)[]): void {
    const newest = this.#write?.time;
    if (newest && times.some((time) => time?.nsec === newest.nsec && time.sec === newest.sec))
      this.#write = undefined;
  }

  /** A server takes the time of a change that this mount asked for. */
  takenElsewhere(): void {
    this.#write = undefined;
  }

  now(): number {
    return this.#clock.now();
  }

  wall(): Timespec {
    this.#write = undefined;
    return this.#clock.wall();
  }

  after(ms: number, fn: () => void, options?: { weak?: boolean }): Timer {
    return this.#clock.after(ms, fn, options);
  }

  every(ms: number, fn: () => void, options?: { weak?: boolean }): Timer {
    return this.#clock.every(ms, fn, options);
  }
}
