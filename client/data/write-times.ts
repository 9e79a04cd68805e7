import type { Timespec } from '../../common/clock.js';
import type { FileClock } from '../file-clock.js';
import type { Tenure } from './file-tail.js';

/** For so long a write may have the time of a durable one before it: what POSIX lets a clock stand still (_POSIX_CLOCKRES_MIN). */
export const WRITE_TIME_KEPT_MS = 20;

/** The time of a write. */
interface Stamp {
  readonly time: Timespec;
  /** Clock ms. */
  readonly at: number;
  /** FileClock.taken of then: as long as it is the same, nothing else in the mount has a later time. */
  readonly taken: number;
  /** Somebody asked for the attributes since. */
  shown: boolean;
}

/**
 * The times of the writes to one file. A new time costs an fsync a command in the log, also where the size stays. So a
 * write has the time of the one before it when nobody can tell the difference: that one is durable and a moment ago,
 * nobody has asked for the attributes since, nothing else changed here since, and the file is this mount's alone.
 */
export class WriteTimes {
  readonly #clock: FileClock;
  readonly #tenure: () => Tenure;
  #newest: Stamp | undefined;
  #durable: { stamp: Stamp; tenure: Tenure } | undefined;

  /** @param tenure begins now */
  constructor(clock: FileClock, tenure: () => Tenure) {
    this.#clock = clock;
    this.#tenure = tenure;
  }

  /** For a write that is made now. */
  next(): Timespec {
    const { stamp, tenure } = this.#durable ?? {};
    const now = this.#clock.now();
    const { taken } = this.#clock;
    const alike = stamp && !stamp.shown && stamp.taken === taken && now - stamp.at < WRITE_TIME_KEPT_MS;
    if (alike && tenure?.holds()) return stamp.time;
    const time = this.#clock.wall();
    this.#newest = { time, at: now, taken: this.#clock.taken, shown: false };
    return time;
  }

  /** Whether these are the times that all servers will remember: they are on a majority's disks, and nobody changed them since. */
  areDurable(mtime: Timespec | undefined, ctime: Timespec | undefined): boolean {
    const { stamp, tenure } = this.#durable ?? {};
    return stamp !== undefined && stamp.time === mtime && stamp.time === ctime && tenure?.holds() === true;
  }

  /** A commit is sent with these times. @returns to be called when it was made */
  committing(mtime: Timespec | undefined, ctime: Timespec | undefined): () => void {
    const stamp = this.#newest;
    if (!stamp || stamp.time !== mtime || stamp.time !== ctime) return () => {};
    const tenure = this.#tenure();
    return () => {
      if (this.#newest === stamp) this.#durable = { stamp, tenure };
    };
  }

  /** Somebody asked for the attributes: the next write has to show. */
  shown(): void {
    if (this.#newest) this.#newest.shown = true;
  }

  /** The times were set otherwise. */
  forget(): void {
    this.#newest = this.#durable = undefined;
  }
}
