import assert from 'node:assert/strict';
import type { FileData } from '../../../client/data/file-data.js';
import { KeptBudget, UnsyncedWrites } from '../../../client/data/unsynced.js';
import { HoldfastError } from '../../../proto/errors.js';
import { CHUNK, DataHarness, pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';

describe('data that was acknowledged and is lost before it is synced', () => {
  async function written(mount: DataHarness, length = 3 * CHUNK + 100): Promise<Buffer> {
    const data = pattern(length, 1);
    await mount.file.write(0, Buffer.from(data));
    await mount.file.flush();
    return data;
  }

  function reported(mount: DataHarness): string | undefined {
    const mark = { seen: 0 };
    return mount.file.takeError(mark)?.errorName;
  }

  /** What the servers hold after one more power cut. */
  async function durable(mount: DataHarness): Promise<Buffer> {
    mount.chunks.crash();
    return mount.seenElsewhere();
  }

  it('is written again by fsync, and durable when that returns', async () => {
    const mount = new DataHarness();
    const data = await written(mount);
    assert.ok(mount.unsynced.keptBytes > data.length);
    mount.chunks.crash();
    await mount.file.fsync(false);
    assert.equal(reported(mount), undefined);
    assert.deepEqual(await durable(mount), data);
    assert.equal(mount.unsynced.keptBytes, 0);
  });

  it('is not written again when the servers were only killed', async () => {
    const mount = new DataHarness();
    const data = await written(mount);
    const frames = mount.chunks.writes.length;
    mount.chunks.kill();
    await mount.file.fsync(false);
    assert.equal(mount.chunks.writes.length, frames);
    assert.equal(reported(mount), undefined);
    assert.deepEqual(await durable(mount), data);
  });

  it('is reported when it is too much to be kept', async () => {
    const mount = new DataHarness({ limits: { unsyncedKeptBytesMax: CHUNK } });
    await written(mount);
    assert.ok(mount.unsynced.keptBytes <= CHUNK);
    mount.chunks.crash();
    await mount.file.fsync(false);
    assert.equal(reported(mount), 'EIO');
  });

  it('is not reported when what was too much to be kept is still there', async () => {
    const mount = new DataHarness({ limits: { unsyncedKeptBytesMax: CHUNK } });
    const data = await written(mount);
    mount.chunks.kill();
    await mount.file.fsync(false);
    assert.equal(reported(mount), undefined);
    assert.deepEqual(await durable(mount), data);
  });

  it('is reported, not written over what others may have written, once the file was shared', async () => {
    const mount = new DataHarness();
    await written(mount);
    mount.unsynced.shared(mount.file.ino);
    assert.equal(mount.unsynced.keptBytes, 0);
    mount.chunks.crash();
    const frames = mount.chunks.writes.length;
    await mount.file.fsync(false);
    assert.equal(mount.chunks.writes.length, frames);
    assert.equal(reported(mount), 'EIO');
  });

  it('is not kept while others may write to the file', async () => {
    const mount = new DataHarness();
    mount.owns = false;
    await written(mount);
    assert.equal(mount.unsynced.keptBytes, 0);
    mount.chunks.crash();
    await mount.file.fsync(false);
    assert.equal(reported(mount), 'EIO');
  });

  it('gives way to what was written over it since, in memory and on the servers', async () => {
    const mount = new DataHarness();
    const expected = await written(mount);
    mount.chunks.crash();
    const [later, latest] = [pattern(500, 7), pattern(300, 9)];
    later.copy(expected, 1000);
    await mount.file.write(1000, Buffer.from(later));
    await mount.file.flush();
    latest.copy(expected, 1400);
    await mount.file.write(1400, Buffer.from(latest));
    await mount.file.fsync(false);
    assert.equal(reported(mount), undefined);
    assert.deepEqual(await mount.read(0, expected.length), expected);
    assert.deepEqual(await durable(mount), expected);
  });

  it('stays cut off where it was truncated', async () => {
    const mount = new DataHarness();
    const data = await written(mount);
    await mount.truncate(CHUNK + 10);
    await mount.truncate(2 * CHUNK);
    mount.chunks.crash();
    await mount.file.fsync(false);
    assert.equal(reported(mount), undefined);
    const expected = Buffer.concat([data.subarray(0, CHUNK + 10), Buffer.alloc(CHUNK - 10)]);
    assert.deepEqual(await mount.read(0, 4 * CHUNK), expected);
  });

  it('is waited for by every fsync that runs while it is written again', async () => {
    const mount = new DataHarness();
    const data = await written(mount);
    mount.chunks.crash();
    const release = mount.chunks.hold();
    let ended = 0;
    const syncs = [1, 2].map(() => mount.file.fsync(false).then(() => ended++));
    await settle();
    assert.equal(ended, 0);
    release();
    await Promise.all(syncs);
    assert.equal(reported(mount), undefined);
    assert.deepEqual(await durable(mount), data);
  });

  it('is reported when the servers lose it again and again', async () => {
    const mount = new DataHarness();
    await written(mount, 100);
    let cuts = 0;
    mount.chunks.failSync = () => {
      if (++cuts > 20) return new HoldfastError('EIO', 'endless');
      mount.chunks.crash();
      return undefined;
    };
    mount.chunks.crash();
    await mount.file.fsync(false);
    assert.equal(reported(mount), 'EIO');
    assert.ok(cuts < 10, `${cuts} syncs`);
  });

  it('is found by the fsync of who opens the file again', async () => {
    for (const shared of [false, true]) {
      const mount = new DataHarness();
      const data = await written(mount);
      if (shared) mount.unsynced.shared(mount.file.ino);
      const file = mount.reopened();
      const mark = file.newMark();
      mount.chunks.crash();
      await file.fsync(false);
      assert.equal(file.takeError(mark)?.errorName, shared ? 'EIO' : undefined);
      if (!shared) assert.deepEqual(await durable(mount), data);
    }
  });

  describe('where much is written without a sync', () => {
    const MIB = 1024 * 1024;
    const limits = { unsyncedKeptBytesMax: 4 * MIB };

    it('is nothing: the oldest is synced before it would have to be let go', async () => {
      const mount = new DataHarness({ limits });
      const data = await written(mount, 10 * MIB);
      assert.ok(mount.chunks.syncs.length > 0);
      mount.chunks.crash();
      await mount.file.fsync(false);
      assert.equal(reported(mount), undefined);
      assert.deepEqual(await durable(mount), data);
    });

    it('is sent no further than can be kept while the servers take their time to sync', async () => {
      const mount = new DataHarness({ limits });
      const release = mount.chunks.holdSyncs();
      const data = pattern(10 * MIB, 1);
      await mount.file.write(0, Buffer.from(data));
      const flushed = mount.file.flush();
      for (let turn = 0; turn < 100; turn++) await settle();
      const sent = mount.chunks.writes.length * CHUNK;
      assert.ok(sent > MIB && sent <= limits.unsyncedKeptBytesMax, `${sent} bytes`);
      mount.chunks.crash();
      release();
      await flushed;
      await mount.file.fsync(false);
      assert.equal(reported(mount), undefined);
      assert.deepEqual(await durable(mount), data);
    });

    it('is found lost by the sync of others, and written again at once', async () => {
      const mount = new DataHarness({ limits });
      const data = await written(mount, MIB);
      mount.chunks.crash();
      const rest = pattern(3 * MIB, 2);
      await mount.file.write(data.length, Buffer.from(rest));
      await mount.file.flush();
      await settle();
      await mount.file.flush();
      assert.deepEqual(await mount.seenElsewhere(), Buffer.concat([data, rest]));
    });

    it('is remembered for who opens the file again', () => {
      const budget = new KeptBudget(MIB);
      const writes = new UnsyncedWrites(1, budget);
      writes.add(3, { epoch: 1, seq: 5 }, 0, 100, [Buffer.alloc(100)]);
      const lineage = { since: 2, former: 1, boundary: { epoch: 1, seq: 4 } };
      writes.syncedUnasked(3, writes.mark(3), lineage, () => undefined);
      assert.equal(budget.bytes, 0);
      assert.deepEqual(writes.synced(3, writes.mark(3), lineage), { pieces: [], gone: true });
    });
  });

  describe('when the mount hears that all replicas may have lost it', () => {
    it('is written again without being asked for', async () => {
      const mount = new DataHarness();
      const data = await written(mount);
      mount.chunks.crash();
      mount.chunks.tellLineage();
      await settle();
      await mount.file.flush();
      assert.deepEqual(await mount.seenElsewhere(), data);
    });

    it('is written again where the file was closed', async () => {
      const mount = new DataHarness();
      const data = await written(mount);
      mount.unsynced.closed(mount.file.ino, () => false);
      const revived: FileData[] = [];
      let ends = 0;
      mount.revive = () => {
        revived.push(mount.reopened());
        return () => ends++;
      };
      mount.chunks.crash();
      mount.chunks.tellLineage();
      await settle();
      assert.deepEqual([revived.length, ends], [1, 1]);
      await revived[0]?.flush();
      assert.deepEqual(await mount.seenElsewhere(), data);
    });

    it('costs nothing where nothing is unsynced', async () => {
      const mount = new DataHarness();
      await written(mount);
      await mount.file.fsync(false);
      const syncs = mount.chunks.syncs.length;
      mount.chunks.kill();
      mount.chunks.tellLineage();
      await settle();
      assert.equal(mount.chunks.syncs.length, syncs);
    });
  });
});
