import type { Clock } from '../common/clock.js';

/** How often it is looked whether anything has gone on. */
export const STALL_CHECK_INTERVAL_MS = 500;

/**
 * Waits for `work` for as long as something goes on.
 * @param progress anything that differs whenever something has gone on
 * @param stallMs without any difference for so long, nothing is waited for any more
 * @returns whether `work` has settled, whatever its outcome
 */
export function settlesUnlessStalled(
  work: Promise<unknown>,
  progress: () => string,
  stallMs: number,
  clock: Clock,
): Promise<boolean> {
  return new Promise((resolve) => {
    let seen = progress();
    let seenAt = clock.now();
    const timer = clock.every(Math.min(STALL_CHECK_INTERVAL_MS, stallMs), () => {
      const now = progress();
      if (now !== seen) {
        seen = now;
        seenAt = clock.now();
      } else if (clock.now() - seenAt >= stallMs) finish(false);
    });
    const finish = (settled: boolean): void => {
      timer.cancel();
      resolve(settled);
    };
    work.then(
      () => finish(true),
      () => finish(true),
    );
  });
}
