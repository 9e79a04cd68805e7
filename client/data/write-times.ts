import type { Timespec } from '../../common/clock.js';
import type { FileClock } from '../file-clock.js';
import type { Tenure } from './file-tail.js';

/** For so long a write may have the time of one before it: what POSIX lets a clock stand still (_POSIX_CLOCKRES_MIN). */
export const WRITE_TIME_KEPT_MS = 20;

/** The time of a write. */
interface Stamp {
  readonly time: Timespec;
  /** Since the first write with this time. */
  readonly tenure: Tenure;
}

/**
 * The times of the writes to one file. A new time costs an fsync a command in the log, also where the size stays. So a
 * write has the time of the newest one before it, to whichever file of the mount, when nobody can tell the difference:
 * that was a moment ago, nothing else here has a later time, nobody was told that time of any file, and this file has been
 * the mount's alone since a write before. Invariants: a later change here never has an earlier time, and always a later
 * one than anybody has seen.
 */
export class WriteTimes {
  readonly #clock: FileClock;
  readonly #tenure: () => Tenure;
  #newest: Stamp | undefined;
  #durable: { stamp: Stamp; tenure: Tenure } | undefined;
  /** As forget(). */
  #setBehind: number | undefined;

  /** @param tenure begins now */
  constructor(clock: FileClock, tenure: () => Tenure) {
    this.#clock = clock;
    this.#tenure = tenure;
  }

  /** For a write that is made now. */
  next(): Timespec {
    const own = this.#newest;
    const recent = own?.tenure.holds() ? this.#clock.recentWrite(WRITE_TIME_KEPT_MS) : undefined;
    if (recent && recent === own?.time) return recent;
    const time = recent ?? this.#clock.timeOfWrite();
    this.#newest = { time, tenure: this.#tenure() };
    return time;
  }

  /** Whether these are the times that all servers will remember: they are on a majority's disks, and nobody changed them since. */
  areDurable(mtime: Timespec | undefined, ctime: Timespec | undefined): boolean {
    const { stamp, tenure } = this.#durable ?? {};
    return stamp !== undefined && stamp.time === mtime && stamp.time === ctime && tenure?.holds() === true;
  }

  /** A commit is sent with these times. @returns to be called when it was made */
  committing(mtime: Timespec | undefined, ctime: Timespec | undefined): () => void {
    const stamp = this.#setBehind === undefined ? this.#newest : undefined;
    if (!stamp || stamp.time !== mtime || stamp.time !== ctime) return () => {};
    const tenure = this.#tenure();
    return () => {
      if (this.#newest === stamp) this.#durable = { stamp, tenure };
    };
  }

  /**
   * Where so many writes were committed ahead of times that were set before the last of them, says theirs behind those. With
   * another place ahead they are left to its commit: to wait here for what is behind it would be to wait for oneself.
   * @param placeAhead whether the next commit goes ahead, too
   * @param commit of the times, behind all that was set
   * @returns how many writes nothing is left to be told of
   */
  async tellAgain(written: number, placeAhead: boolean, commit: () => Promise<void>): Promise<number> {
    const before = this.#setBehind;
    if (before === undefined || written <= before) return written;
    if (placeAhead) return before;
    this.#setBehind = undefined;
    await commit();
    return written;
  }

  /** The times were set otherwise. @param setBehind so many writes, of which a commit may yet go ahead of that; undefined: none does */
  forget(setBehind?: number): void {
    this.#newest = this.#durable = undefined;
    this.#setBehind = setBehind ?? this.#setBehind;
  }
}
