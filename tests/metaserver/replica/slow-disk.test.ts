import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  HAND_OVER_PAUSE_MAX_MS,
  HAND_OVER_PAUSE_MIN_MS,
  SLOW_LOOKS_MAX,
  SlowDisk,
} from '../../../metaserver/replica/slow-disk.js';

const INTERVAL_MS = 200;

/** Looks at even intervals; each is what a majority has on disk and what this server has. */
function looks(disk: SlowDisk, views: [commit: number, persisted: number][], from = 0): number[] {
  const found: number[] = [];
  for (const [at, [commit, persisted]] of views.entries()) {
    if (disk.look({ commit, persisted }, from + at * INTERVAL_MS)) found.push(at);
  }
  return found;
}

const hung = (count: number): [number, number][] => Array.from({ length: count }, (_, at) => [100 + at, 50]);

describe('a leader whose disk is slow', () => {
  it('hands over when what a majority has stays undone here', () => {
    assert.deepEqual(looks(new SlowDisk(INTERVAL_MS), hung(10)), [SLOW_LOOKS_MAX]);
  });

  it('hands over also when its disk does something now and then', () => {
    const views = Array.from({ length: 40 }, (_, at): [number, number] => [
      100 * at,
      at % 3 === 0 ? 100 * at : 100 * (at - (at % 3)),
    ]);
    assert.equal(looks(new SlowDisk(INTERVAL_MS), views).length, 1);
  });

  it('stays when its disk is a little behind at every look, but has done it by the next', () => {
    const views = Array.from({ length: 1_000 }, (_, at): [number, number] => [100 * at, 100 * at - 50]);
    assert.deepEqual(looks(new SlowDisk(INTERVAL_MS), views), []);
  });

  it('stays when nothing is committed without it, however slow it is', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(100), { maxLength: 100 }), (steps) => {
        let done = 0;
        const views = steps.map((step): [number, number] => {
          done += step;
          return [done, done];
        });
        assert.deepEqual(looks(new SlowDisk(INTERVAL_MS), views), []);
      }),
    );
  });

  it('does not take a pause of its own process for its disk', () => {
    const disk = new SlowDisk(INTERVAL_MS);
    for (let at = 0; at < 100; at++)
      assert.equal(disk.look({ commit: 10 * at + 10, persisted: 10 * at - 10 }, at * 3 * INTERVAL_MS), false);
  });

  it('tries again after a pause that doubles up to a bound, and forgets after a long quiet time', () => {
    const disk = new SlowDisk(INTERVAL_MS);
    const views = hung((4 * HAND_OVER_PAUSE_MAX_MS) / INTERVAL_MS);
    const at = looks(disk, views).map((look) => look * INTERVAL_MS);
    const pauses = at.slice(1).map((time, n) => time - (at[n] as number));
    assert.ok(pauses.every((pause, n) => n === 0 || pause >= (pauses[n - 1] as number)));
    assert.equal(pauses[0], HAND_OVER_PAUSE_MIN_MS);
    assert.ok((pauses.at(-1) as number) <= HAND_OVER_PAUSE_MAX_MS + INTERVAL_MS);
    const later = (at.at(-1) as number) + 10 * HAND_OVER_PAUSE_MAX_MS;
    const again = looks(disk, hung(100), later).map((look) => look * INTERVAL_MS);
    assert.equal((again[1] as number) - (again[0] as number), HAND_OVER_PAUSE_MIN_MS);
  });

  it('begins anew with each leadership', () => {
    const disk = new SlowDisk(INTERVAL_MS);
    for (let at = 0; at < 100; at++) {
      assert.equal(disk.look({ commit: 100, persisted: 50 }, at * INTERVAL_MS), false);
      if (at % SLOW_LOOKS_MAX === SLOW_LOOKS_MAX - 1) disk.reset();
    }
  });
});
