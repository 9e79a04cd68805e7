import assert from 'node:assert/strict';
import fc from 'fast-check';
import { WRITE_TIME_KEPT_MS, WriteTimes } from '../../../client/data/write-times.js';
import { FileClock } from '../../../client/file-clock.js';
import type { Timespec } from '../../../common/clock.js';
import { HoldfastError } from '../../../proto/errors.js';
import { DataHarness, pattern } from '../support/data-harness.js';
import { ManualClock } from '../support/manual-clock.js';

/** A file of 100 bytes whose last write, a moment ago, was synced. */
async function synced(): Promise<DataHarness> {
  const mount = new DataHarness();
  await mount.file.write(0, pattern(100, 1));
  await mount.file.fsync(false);
  await mount.clock.advance(1);
  return mount;
}

/** Overwrites it, syncs, and says how many commits that took. */
async function commitsOfNext(mount: DataHarness): Promise<number> {
  const before = mount.inode.commits.length;
  await mount.file.write(0, pattern(50, 2));
  await mount.file.fsync(false);
  return mount.inode.commits.length - before;
}

describe('a write a moment after a synced one', () => {
  it('has its time, so that an fsync needs no commit, and is on disk', async () => {
    const mount = await synced();
    const { mtime } = mount.file.view();
    mount.chunks.writes.splice(0);
    assert.equal(await commitsOfNext(mount), 0);
    assert.deepEqual(mount.chunks.writes, [{ ino: 7, chunk: 0, offset: 0, length: 50, sync: true }]);
    assert.deepEqual(mount.file.view().mtime, mtime);
    assert.deepEqual(mount.inode.attr.mtime, mtime);
  });

  it('is committed later, for others to notice', async () => {
    const mount = await synced();
    const { change } = mount.inode.attr;
    await commitsOfNext(mount);
    assert.equal(mount.file.clean, false);
    await mount.file.flush();
    assert.equal(mount.inode.attr.change, change + 1);
    assert.ok(mount.file.clean);
  });

  it('waits for the commit when the file grows', async () => {
    const mount = await synced();
    await mount.file.write(100, pattern(1, 3));
    await mount.file.fsync(false);
    assert.equal(mount.inode.attr.size, 101);
  });

  it('reports what became of its data', async () => {
    const mount = await synced();
    const mark = mount.file.newMark();
    mount.chunks.failWrite = () => new HoldfastError('ENOSPC');
    assert.equal(await commitsOfNext(mount), 0);
    assert.equal(mount.file.takeError(mark)?.errorName, 'ENOSPC');
    assert.equal(mount.file.takeError(mark), undefined);
  });
});

describe('a write has a time of its own', () => {
  it('some milliseconds later', async () => {
    const mount = await synced();
    const first = mount.file.view().mtime;
    await mount.clock.advance(WRITE_TIME_KEPT_MS);
    assert.equal(await commitsOfNext(mount), 1);
    assert.notDeepEqual(mount.file.view().mtime, first);
    assert.deepEqual(mount.inode.attr.mtime, mount.file.view().mtime);
  });

  it('when somebody has asked for the attributes since', async () => {
    const mount = await synced();
    mount.wall.seen(mount.file.view().mtime);
    assert.equal(await commitsOfNext(mount), 1);
    await mount.clock.advance(1);
    assert.equal(await commitsOfNext(mount), 0);
  });

  it('when something else in the mount has a later time', async () => {
    const mount = await synced();
    mount.wall.wall();
    assert.equal(await commitsOfNext(mount), 1);
    await mount.clock.advance(1);
    mount.wall.takenElsewhere();
    assert.equal(await commitsOfNext(mount), 1);
  });

  it('when the times were set since', async () => {
    const mount = await synced();
    mount.file.timesSet(mount.inode.attr, true);
    assert.equal(await commitsOfNext(mount), 1);
  });

  it('when another mount may have seen the file since, also if it is leased again', async () => {
    const mount = await synced();
    mount.leasedSince++;
    assert.equal(await commitsOfNext(mount), 1);
    await mount.clock.advance(1);
    mount.owns = false;
    assert.equal(await commitsOfNext(mount), 1);
  });

  it('when the commit of the one before has failed', async () => {
    const mount = await synced();
    await mount.clock.advance(WRITE_TIME_KEPT_MS);
    mount.inode.beforeCommit = () => Promise.reject(new HoldfastError('ENOSPC'));
    assert.equal(await commitsOfNext(mount), 1);
    mount.inode.beforeCommit = undefined;
    await mount.clock.advance(1);
    assert.equal(await commitsOfNext(mount), 1);
  });
});

/** Files of one mount that are written to, each leased to it alone until lease() says otherwise. */
class Writers {
  readonly manual = new ManualClock();
  readonly clock = new FileClock(this.manual);
  readonly leases: number[] = [];
  readonly files: WriteTimes[] = [];

  constructor(count: number) {
    for (let file = 0; file < count; file++) {
      this.leases.push(1);
      this.files.push(new WriteTimes(this.clock, () => this.#tenure(file)));
    }
  }

  #tenure(file: number): { holds(): boolean } {
    const lease = this.leases[file];
    return { holds: () => this.leases[file] === lease };
  }

  write(file: number): Timespec {
    return (this.files[file] as WriteTimes).next();
  }

  /** The time of the file's write is committed. @returns whether it had to be */
  sync(file: number, time: Timespec): boolean {
    const times = this.files[file] as WriteTimes;
    if (times.areDurable(time, time)) return false;
    times.committing(time, time)();
    return true;
  }
}

const nanoseconds = ({ sec, nsec }: Timespec): bigint => BigInt(sec) * 1_000_000_000n + BigInt(nsec);

describe('writes to several files in turn', () => {
  it('share a time, so that each file is committed once in a while', async () => {
    const writers = new Writers(4);
    let commits = 0;
    for (let round = 0; round < 2 * WRITE_TIME_KEPT_MS; round++) {
      for (let file = 0; file < 4; file++) if (writers.sync(file, writers.write(file))) commits++;
      await writers.manual.advance(1);
    }
    // Each twice, and once more those that were written first: they had taken a time before the others did.
    assert.ok(commits <= 4 * 2 + 3, `${commits} commits`);
  });

  it('give no time to a file that was not written before under the same lease', async () => {
    const writers = new Writers(2);
    const first = writers.write(0);
    await writers.manual.advance(1);
    assert.notDeepEqual(writers.write(1), first);
    await writers.manual.advance(1);
    writers.leases[0] = 2;
    const again = writers.write(0);
    assert.equal(nanoseconds(again) - nanoseconds(first), 2_000_000n);
  });

  it('never go back, are at most a moment old, and later than what anybody has seen', async () => {
    const step = fc.record({
      file: fc.nat({ max: 3 }),
      what: fc.constantFrom('write', 'write', 'write', 'see', 'change', 'lease', 'forget'),
      ms: fc.constantFrom(0.5, 1, 5, WRITE_TIME_KEPT_MS),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const writers = new Writers(4);
        const now = (): bigint => nanoseconds(writers.manual.wall());
        let newest = 0n;
        let seen = 0n;
        const told: (Timespec | undefined)[] = [];
        for (const { file, what, ms } of steps) {
          await writers.manual.advance(ms);
          if (what === 'write') {
            const time = writers.write(file);
            assert.ok(nanoseconds(time) >= newest && nanoseconds(time) > seen);
            assert.ok(now() - nanoseconds(time) < BigInt(WRITE_TIME_KEPT_MS) * 1_000_000n + 1_000_000n);
            newest = nanoseconds(time);
            told[file] = time;
          } else if (what === 'see') {
            const time = told[file];
            writers.clock.seen(time && { ...time }, undefined);
            if (time && nanoseconds(time) > seen) seen = nanoseconds(time);
          } else if (what === 'change') newest = nanoseconds(writers.clock.wall());
          else if (what === 'lease') writers.leases[file] = (writers.leases[file] as number) + 1;
          else (writers.files[file] as WriteTimes).forget();
        }
      }),
    );
  });
});
