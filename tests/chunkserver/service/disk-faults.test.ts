import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type Disk, nodeDisk } from '../../../common/disk.js';
import { createPrng } from '../../../common/prng.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FRAME_FLAG_SYNC } from '../../../proto/frame-header.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';
import { eventually } from '../../lab/eventually.js';
import { TestCluster } from './test-cluster.js';

const prng = createPrng(3);
const MIB = 1024 * 1024;
const CHUNK_BYTES = 4 * MIB;

function bytes(length: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i += 4) data.writeUInt32LE(prng.int(2 ** 31), i);
  return data;
}

/** This machine's disk, with datasyncs that can be made to fail or to hang. */
class FaultyDisk {
  mode: 'sound' | 'fails' | 'hangs' = 'sound';

  get disk(): Disk {
    return {
      ...nodeDisk,
      open: async (...args) => {
        const file = await nodeDisk.open(...args);
        return {
          write: (parts, position) => file.write(parts, position),
          read: (target, position) => file.read(target, position),
          datasync: () => {
            if (this.mode === 'fails')
              return Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
            return this.mode === 'hangs' ? new Promise(() => undefined) : file.datasync();
          },
          size: () => file.size(),
          truncate: (length) => file.truncate(length),
          close: () => file.close(),
        };
      },
    };
  }
}

async function sameEverywhere(cluster: TestCluster, pg: number): Promise<void> {
  const value = { afterIno: 0, afterChunk: 0, contents: true, repair: false };
  const { error, errorText, page } = await cluster.meta.task(cluster.meta.primary(pg), pg, {
    $case: 'check',
    value,
  });
  assert.equal(error, 0, errorText);
  assert.equal(page?.replicas, 3);
  assert.deepEqual(page?.findings, []);
}

describe('chunkservers whose disk', function () {
  this.timeout(90_000);
  let cluster: TestCluster;
  const faulty = new FaultyDisk();

  afterEach(() => cluster.close());

  for (const who of ['the primary', 'another replica']) {
    it(`fails to sync (${who}) are dropped, and rebuilt from the others`, async () => {
      cluster = new TestCluster(3, 1, 2);
      const bad = who === 'the primary' ? 1 : 2;
      faulty.mode = 'sound';
      cluster.disks.set(bad, faulty.disk);
      await cluster.start(1, 2, 3);
      await cluster.write(0, 7, 0, bytes(100_000), { flags: FRAME_FLAG_SYNC });
      faulty.mode = 'fails';
      const data = bytes(200_000);
      await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
      await eventually('it is dropped', () => cluster.meta.state(0, bad) !== ReplicaState.REPLICA_IN_SYNC);
      assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
      await cluster.stopServer(bad);
      faulty.mode = 'sound';
      await cluster.startServer(bad);
      await cluster.meta.when(() => cluster.meta.whole);
      assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
      await sameEverywhere(cluster, 0);
    });
  }

  it('hangs give up, and the others go on without them', async () => {
    cluster = new TestCluster(3, 1, 2);
    cluster.diskStallMs = 1000;
    faulty.mode = 'sound';
    cluster.disks.set(1, faulty.disk);
    await cluster.start(1, 2, 3);
    assert.equal(cluster.meta.primary(0), 1);
    await cluster.write(0, 7, 0, bytes(1000), { flags: FRAME_FLAG_SYNC });
    faulty.mode = 'hangs';
    const data = bytes(200_000);
    await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
    assert.notEqual(cluster.meta.primary(0), 1);
    assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
    cluster.abandonServer(1);
  });

  it('is full refuse writes before anything breaks, still delete, and have room again', async function () {
    cluster = new TestCluster(3, 2, 2);
    const mounts: string[] = [];
    try {
      await cluster.prepare();
      for (const id of [1, 2, 3]) {
        const dir = cluster.dataDir(id);
        mkdirSync(dir);
        try {
          execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=112m', 'holdfast-test', dir], {
            stdio: 'ignore',
          });
        } catch {
          this.skip(); // only root may mount
        }
        mounts.push(dir);
      }
      await cluster.start(1, 2, 3);
      const fill = async (first: number): Promise<number> => {
        for (let ino = first; ; ino++) {
          try {
            await cluster.write(ino % 2, ino, 0, bytes(2 * MIB));
          } catch (error) {
            assert.ok(error instanceof HoldfastError && error.errorName === 'ENOSPC', String(error));
            return ino - first;
          }
          assert.ok(ino < first + 100, 'it never becomes full');
        }
      };
      const count = await fill(10);
      assert.ok(count > 10, `${count} chunks`);
      assert.ok(cluster.meta.whole, 'nobody was dropped');
      assert.equal((await cluster.read(0, 10, 0, CHUNK_BYTES)).length, 2 * MIB);
      // Another program takes what is left, and more than the stores count on.
      const foreign = mounts.map((dir) => path.join(dir, 'foreign'));
      for (const file of foreign) writeFileSync(file, Buffer.alloc(10 * MIB));
      const last = 10 + count + (await fill(10 + count));
      assert.ok(cluster.meta.whole, 'nobody was dropped');
      for (let ino = 10; ino < last; ino++) {
        const purge = { pg: ino % 2, ino, truncateSeq: 0, truncateFrom: 0, chunkSize: CHUNK_BYTES };
        cluster.meta.purge(cluster.meta.primary(ino % 2), purge);
      }
      await cluster.meta.when(() => cluster.meta.purged.length === last - 10);
      for (const file of foreign) rmSync(file);
      let again = 0;
      await eventually('there is room again', async () => {
        again += await fill(1000 + again);
        return again > 10;
      });
      assert.ok(cluster.meta.whole, 'nobody was dropped');
      assert.deepEqual(cluster.meta.failures, []);
    } finally {
      await cluster.stopAll();
      for (const dir of mounts) execFileSync('umount', ['-l', dir]);
    }
  });
});
