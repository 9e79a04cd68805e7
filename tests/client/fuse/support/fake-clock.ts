import type { Clock } from '../../../../common/clock.js';

/** A clock that stands until it is moved, without timers. */
export function standingClock(): Clock & { advance(ms: number): void } {
  let now = 0;
  const noTimers = (): never => {
    throw new Error('this clock has no timers');
  };
  return {
    now: () => now,
    wall: () => ({ sec: Math.floor(now / 1000), nsec: (now % 1000) * 1_000_000 }),
    after: noTimers,
    every: noTimers,
    advance(ms) {
      now += ms;
    },
  };
}
