import assert from 'node:assert/strict';
import type { AuditRequest } from '../../../chunkserver/service/audit.js';
import { LinkTable } from '../../../chunkserver/service/links.js';
import { Repair } from '../../../chunkserver/service/repair.js';
import { Scrubber } from '../../../chunkserver/service/scrubber.js';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng, type Prng } from '../../../common/prng.js';
import { HoldfastError } from '../../../proto/errors.js';
import { CheckedPage } from '../../../proto/gen/cluster.js';
import { ManualClock } from '../store/harness.js';

const HOUR_MS = 3_600_000;
const MB = 1_000_000;

/** Begins with the first of the groups. */
const inOrder: Prng = { ...createPrng(1), int: () => 0 };

/** Two pages of 10 MB in group 1, none in group 2; group 3 is led by another server now. */
function scrubbing(intervalMs: number, bytesPerSecond = 10 * MB, prng = inOrder) {
  const clock = new ManualClock();
  const asked: string[] = [];
  const repair = new Repair({} as ChunkStore, new LinkTable(), silentLogger);
  const page = async (pg: number, { after, contents, repair: fix }: AuditRequest): Promise<CheckedPage> => {
    assert.ok(contents && fix);
    asked.push(`${pg} behind ${after.ino} at ${clock.now() / 1000} s`);
    if (pg === 3) throw new HoldfastError('NOT_PRIMARY');
    const first = pg === 1 && after.ino === 0;
    const bytes = pg === 1 ? 30 * MB : 0;
    return { ...CheckedPage.create({}), bytes, replicas: 3, end: !first, lastIno: first ? 50 : 0 };
  };
  const deps = { clock, prng, log: silentLogger, repair, led: () => [1, 2, 3], page };
  const scrubber = new Scrubber({ intervalMs, bytesPerSecond }, deps);
  scrubber.start();
  return { clock, asked, scrubber, repair };
}

describe('the periodic scrub', () => {
  it('reads all groups, at its rate, pass after pass', async () => {
    const { clock, asked, scrubber } = scrubbing(2 * HOUR_MS);
    assert.equal(asked.length, 0);
    await clock.advance(HOUR_MS);
    const [first] = asked;
    const at = Number(/at ([\d.]+) s/.exec(first ?? '')?.[1]);
    assert.deepEqual(asked, [
      `1 behind 0 at ${at} s`,
      `1 behind 50 at ${at + 1} s`,
      `2 behind 0 at ${at + 1} s`,
      `3 behind 0 at ${at + 1} s`,
    ]);
    assert.equal(scrubber.status().passes, 1);
    assert.equal(scrubber.status().doneBytes, 0);
    assert.equal(scrubber.status().lastPassSec, Math.floor(at + 1));
    await clock.advance(2 * HOUR_MS);
    assert.equal(asked.length, 8);
    assert.equal(asked[4], `1 behind 0 at ${at + 1 + 2 * 3600} s`);
  });

  it('begins with any of the groups, so that a server which is often restarted scrubs them all', async () => {
    const begun = new Set<string | undefined>();
    for (let seed = 1; seed <= 30; seed++) {
      const { clock, asked, scrubber } = scrubbing(HOUR_MS, 1, createPrng(seed));
      await clock.advance(HOUR_MS);
      scrubber.close();
      assert.ok(asked.length <= 3);
      begun.add(asked[0]?.slice(0, 1));
    }
    assert.deepEqual([...begun].sort(), ['1', '2', '3']);
  });

  it('takes its time over small files too, each of which costs the disk a read', async () => {
    const clock = new ManualClock();
    const repair = new Repair({} as ChunkStore, new LinkTable(), silentLogger);
    let chunks = 0;
    const page = async (): Promise<CheckedPage> => {
      chunks += 256;
      const page = { chunks: 256, bytes: 3 * 256 * 16, replicas: 3, lastIno: chunks, end: chunks >= 256_000 };
      return { ...CheckedPage.create({}), ...page };
    };
    const deps = { clock, prng: inOrder, log: silentLogger, repair, led: () => [1], page };
    const scrubber = new Scrubber({ intervalMs: HOUR_MS, bytesPerSecond: 20 * MB }, deps);
    scrubber.start();
    while (chunks === 0) await clock.advance(60_000);
    const before = chunks;
    await clock.advance(60_000);
    assert.ok(chunks - before >= 256, 'it goes on');
    assert.ok(chunks - before <= 30_000, `${chunks - before} reads a minute`);
    scrubber.close();
  });

  it('says how far it is, and what was found', async () => {
    const { clock, scrubber, repair, asked } = scrubbing(HOUR_MS, 1);
    await clock.advance(HOUR_MS);
    assert.equal(asked.length, 1);
    repair.found = 3;
    repair.repaired = 2;
    const { found, repaired, passes, doneBytes } = scrubber.status();
    assert.deepEqual([found, repaired, passes, doneBytes], [3, 2, 0, 30 * MB]);
  });

  it('ends when it is closed, and never begins when it is off', async () => {
    const off = scrubbing(0);
    await off.clock.advance(10 * HOUR_MS);
    assert.deepEqual(off.asked, []);
    const closed = scrubbing(HOUR_MS);
    closed.scrubber.close();
    await closed.clock.advance(10 * HOUR_MS);
    assert.deepEqual(closed.asked, []);
  });
});
