import assert from 'node:assert/strict';
import { WRITE_TIME_KEPT_MS } from '../../../client/data/write-times.js';
import { HoldfastError } from '../../../proto/errors.js';
import { DataHarness, pattern } from '../support/data-harness.js';

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
    mount.file.timesShown();
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
