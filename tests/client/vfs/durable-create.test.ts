import assert from 'node:assert/strict';
import { LANE_DELAY_MS } from '../../../client/leases/change-lane.js';
import { HoldfastError } from '../../../proto/errors.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

/** A mount that makes names in its root directory by itself. */
async function alone(): Promise<TestMount> {
  const mount = new TestMount();
  for (const name of ['first', 'second']) await mount.close((await mount.create(name)).handle);
  await mount.clock.advance(1_000);
  mount.meta.batches.splice(0);
  return mount;
}

async function written(mount: TestMount, name: string): Promise<{ ino: number; handle: number }> {
  const { ino, handle } = await mount.create(name);
  await mount.write(handle, 0, pattern(100, 1));
  return { ino, handle };
}

describe('a file that is made, written and synced', () => {
  it('is one entry of the log, and the directory needs none behind it', async () => {
    const mount = await alone();
    const { ino, handle } = await written(mount, 'a');
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.deepEqual(mount.meta.batches, [['makeNode']]);
    await mount.close(handle);
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    assert.equal(mount.meta.batches.length, 1);
    assert.deepEqual(await mount.second().readFile('a'), pattern(100, 1));
  });

  it('is named only when its data has landed', async () => {
    const mount = await alone();
    const release = mount.chunks.hold();
    const { ino, handle } = await written(mount, 'a');
    const synced = mount.fs.fsync(caller(), ino, handle, false);
    await settle();
    assert.deepEqual(mount.meta.batches, []);
    release();
    await synced;
    assert.equal(mount.meta.batches.length, 1);
  });

  it('does not hold up what was changed before it when its data is stuck', async () => {
    const mount = await alone();
    const release = mount.chunks.hold();
    const { ino, handle } = await written(mount, 'a');
    const synced = mount.fs.fsync(caller(), ino, handle, false);
    await settle();
    const other = mount.fs.fsyncdir(caller(), 1, 0, false);
    await other;
    assert.deepEqual(mount.meta.batches, [['makeNode']], 'who waits for the lane does not wait for data');
    await mount.create('b');
    await mount.clock.advance(LANE_DELAY_MS);
    assert.equal(mount.meta.batches.length, 2, 'nor does what was made meanwhile');
    release();
    await synced;
    assert.deepEqual(await mount.second().readFile('a'), pattern(100, 1));
  });

  it('is there when its data is not, which the call tells', async () => {
    const mount = await alone();
    mount.chunks.failWrite = () => new HoldfastError('ENOSPC');
    const { ino, handle } = await written(mount, 'a');
    await assert.rejects(mount.fs.fsync(caller(), ino, handle, false), { errorName: 'ENOSPC' });
    assert.deepEqual(mount.meta.batches.flat()[0], 'makeNode');
    assert.deepEqual(await mount.second().readFile('a'), Buffer.alloc(0));
  });

  it('does not wait for what others sync behind it, nor does the directory', async () => {
    const mount = await alone();
    const { ino, handle } = await written(mount, 'a');
    const other = await written(mount, 'b');
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.fs.fsync(caller(), other.ino, other.handle, false);
    await mount.write(handle, 100, pattern(100, 2));
    await mount.write(other.handle, 100, pattern(100, 3));
    const release = mount.meta.hold();
    const ends: string[] = [];
    const first = mount.fs.fsync(caller(), ino, handle, false).then(() => ends.push('a'));
    await settle();
    const second = mount.fs.fsync(caller(), other.ino, other.handle, false).then(() => ends.push('b'));
    await settle();
    await mount.fs.fsyncdir(caller(), 1, 0, false);
    assert.deepEqual(ends, [], 'commits of open files are under way, no name is');
    release();
    const again = mount.meta.hold();
    await settle();
    assert.deepEqual(ends, ['a'], 'the second commit is a batch of its own, and is held');
    again();
    await Promise.all([first, second]);
  });

  it('waits for names that were made before it', async () => {
    const mount = await alone();
    const { ino, handle } = await written(mount, 'a');
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.create('b');
    const release = mount.meta.hold();
    let ended = 0;
    const count = (): void => {
      ended++;
    };
    const syncs = [
      mount.fs.fsync(caller(), ino, handle, false).then(count),
      mount.fs.fsyncdir(caller(), 1, 0, false).then(count),
    ];
    await settle();
    assert.equal(ended, 0);
    release();
    await Promise.all(syncs);
  });
});
