import { assert } from '../../common/assert.js';

/** A disk counts as slow when at so many looks, less a part of those in between, it had not done what others had. */
export const SLOW_LOOKS_MAX = 4;
/** What a look at which it kept up takes off. */
const QUICK_LOOK_CREDIT = 0.25;
/** After a leadership was handed over because of it, or was to be, it is not again for so long; twice as long each further time .. */
export const HAND_OVER_PAUSE_MIN_MS = 10_000;
export const HAND_OVER_PAUSE_MAX_MS = 600_000;

/** What the leader knows of the log at a look. */
export interface LogView {
  /** A majority has it on disk. */
  commit: number;
  /** This server has it on disk. */
  persisted: number;
}

/**
 * Whether the leader should hand over because its own disk is slower than those of the others. Nothing is applied before it is
 * durable here, so a leader with a slow disk holds up every change that a majority has long had.
 *
 * What is measured is a comparison: a look is slow when an entry that a majority had at the look before is still not durable
 * here. Where all disks are slow alike, or all processors are busy, nothing is committed without the leader, and no look is
 * slow. Of two servers the slower one hands over and never the quicker one, so the leadership comes to rest; that disks change
 * places in slowness is bounded by the pause. Pure: looks come in, at even intervals.
 */
export class SlowDisk {
  readonly #intervalMs: number;
  /** What was committed at the last look and not durable here. */
  #waitsFor = 0;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #slow = 0;
  #pauseMs = HAND_OVER_PAUSE_MIN_MS;
  #notBefore = Number.NEGATIVE_INFINITY;

  /** @param intervalMs between two looks */
  constructor(intervalMs: number) {
    assert(intervalMs > 0, 'looks are apart');
    this.#intervalMs = intervalMs;
  }

  /** This server does not lead, or has begun to. */
  reset(): void {
    this.#slow = 0;
    this.#waitsFor = 0;
  }

  /** @returns whether the leadership should go to another server now */
  look({ commit, persisted }: LogView, nowMs: number): boolean {
    const gap = nowMs - this.#lookedAt;
    this.#lookedAt = nowMs;
    // After a pause of the process what the disk has done meanwhile may not have been heard yet.
    const paused = gap > 2 * this.#intervalMs;
    if (!paused) {
      const slow = this.#waitsFor > persisted;
      this.#slow = slow ? this.#slow + 1 : Math.max(0, this.#slow - QUICK_LOOK_CREDIT);
    }
    this.#waitsFor = commit > persisted ? commit : 0;
    if (this.#slow < SLOW_LOOKS_MAX || nowMs < this.#notBefore) return false;
    this.#begin(nowMs);
    return true;
  }

  #begin(nowMs: number): void {
    const quietMs = nowMs - this.#notBefore;
    this.#pauseMs =
      quietMs > HAND_OVER_PAUSE_MAX_MS
        ? HAND_OVER_PAUSE_MIN_MS
        : Math.min(HAND_OVER_PAUSE_MAX_MS, 2 * this.#pauseMs);
    this.#notBefore = nowMs + this.#pauseMs;
    this.reset();
  }
}
