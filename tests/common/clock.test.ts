import assert from 'node:assert/strict';
import { systemClock } from '../../common/clock.js';
import { createPrng } from '../../common/prng.js';

describe('the system clock', () => {
  it('never goes back, and agrees with the wall clock to a few milliseconds', () => {
    let last = systemClock.now();
    for (let i = 0; i < 1000; i++) {
      const now = systemClock.now();
      assert.ok(now >= last);
      last = now;
    }
    const { sec, nsec } = systemClock.wall();
    assert.ok(nsec >= 0 && nsec < 1e9);
    assert.ok(Math.abs(sec * 1000 + nsec / 1e6 - Date.now()) < 1000);
  });

  it('calls a timer once, and not after it was cancelled', async () => {
    let calls = 0;
    const cancelled = systemClock.after(1, () => calls++);
    cancelled.cancel();
    cancelled.cancel();
    await new Promise<void>((resolve) => systemClock.after(20, resolve));
    assert.equal(calls, 0);
  });
});

describe('the seeded generator', () => {
  it('gives the sequence that its seed names', () => {
    const prng = createPrng(42);
    const again = createPrng(42);
    const other = createPrng(43);
    const draw = (source: typeof prng) => Array.from({ length: 8 }, () => source.int(1_000_000));
    const first = draw(prng);
    assert.deepEqual(draw(again), first);
    assert.notDeepEqual(draw(other), first);
  });

  it('stays within its range and fills it', () => {
    const prng = createPrng(7);
    const seen = new Set<number>();
    for (let i = 0; i < 2000; i++) {
      const value = prng.int(10);
      assert.ok(Number.isInteger(value) && value >= 0 && value < 10);
      seen.add(value);
    }
    assert.equal(seen.size, 10);
  });
});
