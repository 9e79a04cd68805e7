import assert from 'node:assert/strict';
import { createPrng } from '../../common/prng.js';
import { chooseFault, FAULTS } from './faults.js';
import { JOB_KINDS, jobFile, newLoad, parseFio } from './fio.js';
import { concludeRun, newRun, type RoundRecord, type StressRun } from './record.js';
import { htmlReport } from './report-html.js';
import { faultRows, textReport } from './report-text.js';

const FIO = { operations: 10, bytesWritten: 1e6, bytesVerified: 1e6, errors: [], longestMs: 3 };
const ROUND: RoundRecord = {
  ...{ number: 1, beganMs: 0, endedMs: 9_000, synced: 5, fsck: 'clean' },
  written: { ...FIO, bytesVerified: 0 },
  verified: FIO,
  verdict: { offences: [], reads: 3, writes: 3, claims: 2 },
};

function goodRun(): StressRun {
  const run = newRun('npm run stress', '2 cores', 1);
  run.seconds = 10;
  run.rounds.push(ROUND);
  run.faults.push(
    { name: 'kill', victim: 'a', beganMs: 1_000, undoneMs: 2_000, healthyMs: 3_000, stallMs: 40 },
    {
      name: 'wipe',
      victim: 'b',
      beganMs: 4_000,
      undoneMs: 5_000,
      healthyMs: 7_000,
      stallMs: 60,
      copiedBytes: 4e6,
    },
    { name: 'kill', victim: '<c>', beganMs: 8_000, undoneMs: 8_500, healthyMs: 9_000, stallMs: 90 },
  );
  run.fsync.push({ atMs: 0, value: 3 }, { atMs: 1_000, value: 40 });
  run.memory.push({ name: 'a', firstBytes: 1e7, peakBytes: 5e7, lastBytes: 2e7 });
  return run;
}

function failures(change: (run: StressRun) => void): string[] {
  const run = goodRun();
  change(run);
  concludeRun(run);
  return run.failures;
}

describe('the stress report', () => {
  it('passes a run that proved something', () => {
    assert.deepEqual(
      failures(() => {}),
      [],
    );
  });

  it('fails a run that proved nothing', () => {
    const round = (change: Partial<RoundRecord>) =>
      failures((run) => {
        run.rounds = [{ ...ROUND, ...change }];
      });
    assert.deepEqual(
      failures((run) => {
        run.faults = [];
      }),
      ['proved nothing: no fault happened'],
    );
    assert.deepEqual(round({ verified: { ...FIO, bytesVerified: 0 } }), [
      'proved nothing: no byte was verified',
    ]);
    assert.deepEqual(round({ synced: 0 }), ['proved nothing: no fsync was watched']);
    assert.deepEqual(round({ verdict: { ...ROUND.verdict, reads: 0 } }), [
      'proved nothing: no two clients used the same file',
    ]);
    assert.deepEqual(
      failures((run) => {
        run.rounds = [];
      }),
      ['proved nothing: nothing ran'],
    );
  });

  it('fails a process that took too much memory', () => {
    const found = failures((run) => {
      run.memory = [{ name: 'a', firstBytes: 1, peakBytes: 2 ** 31, lastBytes: 1 }];
    });
    assert.deepEqual(found, ['a held 2048 MiB of memory']);
  });

  it('gives each kind of fault its median and longest stall, and the rate of its copies', () => {
    assert.deepEqual(faultRows(goodRun().faults), [
      { name: 'kill', count: 2, medianStallMs: 90, longestStallMs: 90, healthyMs: 1_000 },
      { name: 'wipe', count: 1, medianStallMs: 60, longestStallMs: 60, healthyMs: 2_000, copiedMbps: 2 },
    ]);
    assert.match(
      textReport(goodRun()),
      /\| wipe \| 1 \| 60 ms \| 60 ms \| 2\.0 s \| 2\.0 MB\/s \|[\s\S]*PASSED/,
    );
  });

  it('says how soon a wiped server was in-sync, and what a writer kept of its speed', () => {
    const run = goodRun();
    const refill = { beganMs: 0, endedMs: 5_000, seconds: 5, bytes: 512 * 2 ** 20, mbps: 107.4 };
    const beside = { refill: { ...refill, seconds: 15 }, aloneMbps: 40, besideMbps: 20, ratio: 0.5 };
    run.wiped = { refills: [refill], beside, targetS: 10 };
    const text = textReport(run);
    assert.match(text, /- 512 MiB in-sync 5\.0 s after its start \(107 MB\/s\), at most 10 s/);
    assert.match(text, /- the writer: 20\.0 MB\/s, alone 40\.0 MB\/s, ratio 0\.50/);
  });

  it('is one page that needs no other file, with every fault drawn on it', () => {
    const page = htmlReport(goodRun());
    assert.equal(page.match(/<rect class="fault"/g)?.length, 3);
    assert.ok(page.includes('kill (&lt;c&gt;): longest fsync 90 ms') && !page.includes('<c>'));
    assert.doesNotMatch(page, /src=|href=|@import|url\(/);
  });
});

describe('the load of the stress suite', () => {
  it('writes whole blocks only, the same ones for the same seed', () => {
    const load = newLoad('x', 33, createPrng(4));
    const file = jobFile('/dir', load, 'write', []);
    assert.equal(file, jobFile('/dir', newLoad('x', 33, createPrng(4)), 'write', []));
    assert.notEqual(file, jobFile('/dir', newLoad('x', 33, createPrng(5)), 'write', []));
    const sizes = [...file.matchAll(/^(?:file)?size=(\d+)$/gm)].map((match) => Number(match[1]));
    assert.equal(sizes.length, JOB_KINDS.length);
    for (const size of sizes) assert.equal(size % 16_384, 0);
  });

  it("takes fio's figures from behind what it says about failures", () => {
    const io = { total_ios: 3, io_bytes: 4096, lat_ns: { max: 2e6 } };
    const json = JSON.stringify(
      { jobs: [{ jobname: 'j', error: 5, write: io, read: io, sync: {} }] },
      null,
      1,
    );
    const result = parseFio(1, `verify: bad header\n${json}`, '');
    assert.deepEqual(result, {
      ...{ operations: 6, bytesWritten: 4096, bytesVerified: 4096, longestMs: 2 },
      errors: ['fio ended with 1: verify: bad header', 'j: error 5: verify: bad header'],
    });
    assert.equal(parseFio(0, '', '').errors.length, 1);
  });
});

describe('the nemesis', () => {
  it('takes every fault at some time, and the same ones for the same seed', () => {
    const names = (seed: number): string[] => {
      const prng = createPrng(seed);
      return Array.from({ length: 1_000 }, () => chooseFault(FAULTS, prng).name);
    };
    assert.deepEqual(names(3), names(3));
    assert.equal(new Set(names(3)).size, FAULTS.length);
    assert.equal(new Set(FAULTS.map((kind) => kind.name)).size, FAULTS.length);
  });
});
