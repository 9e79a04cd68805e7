import assert from 'node:assert/strict';
import type { ChunkReport } from '../../../chunkserver/service/chunk-report.js';
import { packReports, unpackReports } from '../../../chunkserver/service/chunk-report.js';
import { type FindingKind, judge } from '../../../chunkserver/service/verdict.js';

function report(seq: number, sum = seq * 7, damaged = false): ChunkReport {
  return { ino: 7, chunk: 1, version: { epoch: 1, seq }, bytes: 10, end: 10, sum, damaged };
}

const DAMAGED = report(5, 0, true);

/** What is wrong at servers 1, 2, .. and who is right. */
function verdict(...held: (ChunkReport | undefined)[]): [Record<number, FindingKind>, number[]] {
  const { wrong, right } = judge(new Map(held.map((each, index) => [index + 1, each])));
  return [Object.fromEntries(wrong), right];
}

describe('the verdict on the replicas of a chunk', () => {
  it('finds nothing where all agree', () => {
    assert.deepEqual(verdict(report(5), report(5), report(5)), [{}, [1, 2, 3]]);
    assert.deepEqual(verdict(report(5)), [{}, [1]]);
  });

  it('takes those that can be read, when they agree', () => {
    assert.deepEqual(verdict(DAMAGED, report(5), report(5)), [{ 1: 'damaged' }, [2, 3]]);
    assert.deepEqual(verdict(report(5), DAMAGED, DAMAGED), [{ 2: 'damaged', 3: 'damaged' }, [1]]);
    assert.deepEqual(verdict(DAMAGED, report(5)), [{ 1: 'damaged' }, [2]]);
  });

  it('takes the majority of all, when they do not agree', () => {
    assert.deepEqual(verdict(report(5), report(4), report(5)), [{ 2: 'differs' }, [1, 3]]);
    assert.deepEqual(verdict(report(5, 1), report(5, 2), report(5, 2)), [{ 1: 'differs' }, [2, 3]]);
    assert.deepEqual(verdict(undefined, report(5), report(5)), [{ 1: 'missing' }, [2, 3]]);
    assert.deepEqual(verdict(undefined, report(5), undefined), [{ 2: 'extra' }, [1, 3]]);
  });

  it('knows no right answer without a majority, and none when nobody can be read', () => {
    assert.deepEqual(verdict(report(5), report(4)), [{ 1: 'differs', 2: 'differs' }, []]);
    assert.deepEqual(verdict(undefined, report(5)), [{ 1: 'differs', 2: 'differs' }, []]);
    assert.deepEqual(verdict(report(5), report(4), DAMAGED), [
      { 1: 'differs', 2: 'differs', 3: 'damaged' },
      [],
    ]);
    assert.deepEqual(verdict(report(1), report(2), report(3))[1], []);
    assert.deepEqual(verdict(DAMAGED, DAMAGED), [{ 1: 'damaged', 2: 'damaged' }, []]);
  });

  it('travels as it is', () => {
    const reports = [report(2 ** 40, 9), { ...DAMAGED, ino: 2 ** 44, chunk: 0xffff_ffff }];
    assert.deepEqual(unpackReports(packReports(reports)), reports);
    assert.throws(() => unpackReports(Buffer.alloc(45)), /report of chunks/);
  });
});
