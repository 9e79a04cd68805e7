import type { PgStatus } from '../../proto/gen/cluster.js';

/** The rate is that of the last so many milliseconds .. */
export const RATE_WINDOW_MS = 4000;
/** .. in at most so many samples. */
const SAMPLES_MAX = 64;

export interface RecoveryProgress {
  /** Of all groups that recovered since the first of them began. */
  doneBytes: number;
  /** As far as the groups know: one whose primary was not asked yet counts nothing. */
  leftBytes: number;
  bytesPerSecond: number;
}

const NOTHING: RecoveryProgress = { doneBytes: 0, leftBytes: 0, bytesPerSecond: 0 };

/** Adds up what the groups of a server say of their recovery, from the first that begins to the last that ends. Pure. */
export class RecoveryMeter {
  readonly #groups = new Map<number, { done: number; left: number }>();
  #samples: { at: number; done: number }[] = [];

  /** @param statuses groups that are not plainly in-sync @param now monotonic milliseconds */
  sample(statuses: readonly PgStatus[], now: number): RecoveryProgress {
    const recovering = new Map(
      statuses.filter(({ state }) => state === 'recovering').map((one) => [one.pg, one]),
    );
    if (recovering.size === 0) {
      this.#groups.clear();
      this.#samples = [];
      return NOTHING;
    }
    for (const [pg, group] of this.#groups) {
      if (recovering.has(pg)) continue;
      group.done += group.left;
      group.left = 0;
    }
    for (const [pg, { recoveryDoneBytes: done, recoveryLeftBytes: left }] of recovering)
      this.#groups.set(pg, { done, left });
    let doneBytes = 0;
    let leftBytes = 0;
    for (const { done, left } of this.#groups.values()) {
      doneBytes += done;
      leftBytes += left;
    }
    return { doneBytes, leftBytes, bytesPerSecond: this.#rate(doneBytes, now) };
  }

  #rate(done: number, now: number): number {
    this.#samples.push({ at: now, done });
    while (this.#samples.length > SAMPLES_MAX || now - (this.#samples[0]?.at ?? now) > RATE_WINDOW_MS)
      this.#samples.shift();
    const first = this.#samples[0];
    if (!first || now <= first.at) return 0;
    return Math.max(0, Math.round(((done - first.done) * 1000) / (now - first.at)));
  }
}
