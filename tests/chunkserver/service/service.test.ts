import assert from 'node:assert/strict';
import { open, readdir } from 'node:fs/promises';
import path from 'node:path';
import type { ChunkInfo } from '../../../chunkserver/store/chunk-store.js';
import { openChunkStore } from '../../../chunkserver/store/open.js';
import { systemClock } from '../../../common/clock.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { type CopySource, packCopySource } from '../../../proto/copy-source.js';
import { HoldfastError } from '../../../proto/errors.js';
import { packTable } from '../../../proto/extent-table.js';
import { FRAME_FLAG_SYNC, FrameType } from '../../../proto/frame-header.js';
import { FrameError } from '../../../proto/frames.js';
import { ReplicaState } from '../../../proto/gen/cluster.js';
import { pgOfChunk } from '../../../proto/types.js';
import { TestCluster } from './test-cluster.js';

const prng = createPrng(5);
const MIB = 1024 * 1024;

function bytes(length: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) data[i] = prng.int(256);
  return data;
}

/** Flips a bit behind each occurrence of `mark` in the files of a directory. */
async function damage(dir: string, mark: Buffer): Promise<void> {
  let found = 0;
  for (const name of await readdir(dir)) {
    const file = await open(path.join(dir, name), 'r+');
    const content = await file.readFile();
    const at = content.indexOf(mark);
    if (at >= 0) {
      found++;
      await file.write(Buffer.from([(content[at] as number) ^ 1]), 0, 1, at);
    }
    await file.close();
  }
  assert.equal(found, 1, 'the data is in one file');
}

async function errorOf(promise: Promise<unknown>): Promise<HoldfastError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof HoldfastError, String(error));
    return error;
  }
  return assert.fail('it succeeded');
}

describe('three chunkservers', function () {
  this.timeout(30_000);
  let cluster: TestCluster;

  beforeEach(async () => {
    cluster = new TestCluster(3, 4, 2);
    await cluster.start(1, 2, 3);
  });
  afterEach(() => cluster.close());

  it('give back what was written, with holes as zeros', async () => {
    const data = bytes(100_000);
    const reply = await cluster.write(1, 7, 2, data, { offset: 8192, flags: FRAME_FLAG_SYNC });
    assert.equal(reply.header.aux, data.length);
    assert.equal((await cluster.write(1, 7, 2, data, { offset: 8192 })).header.aux, 0);
    const read = await cluster.read(1, 7, 2, 4 * MIB);
    assert.deepEqual(read, Buffer.concat([Buffer.alloc(8192), data]));
    assert.equal((await cluster.read(1, 7, 3, 4096)).length, 0);
    await cluster.call({ type: FrameType.SYNC, pg: 1 });
  });

  it('refuse old epochs, wrong servers and impossible ranges', async () => {
    await cluster.write(0, 1, 0, bytes(10));
    const primary = cluster.meta.primary(0);
    const read = { type: FrameType.READ, pg: 0, ino: 1, length: 10, epoch: 1 };
    const other = (primary % 3) + 1;
    assert.equal((await errorOf(cluster.ask(other, read))).errorName, 'NOT_PRIMARY');
    assert.equal((await errorOf(cluster.ask(primary, { ...read, epoch: 0 }))).errorName, 'STALE_EPOCH');
    assert.equal((await errorOf(cluster.ask(primary, { ...read, length: 5 * MIB }))).errorName, 'EINVAL');
    assert.equal((await errorOf(cluster.ask(primary, { ...read, pg: 99 }))).errorName, 'EINVAL');
    const list = { type: FrameType.LIST, pg: 0, epoch: 1, length: 10 };
    assert.equal((await errorOf(cluster.ask(primary, list))).errorName, 'UNAVAILABLE');
  });

  it('refuse inodes and ends that cannot be, and go on', async () => {
    await cluster.write(0, 1, 0, bytes(10));
    const primary = cluster.meta.primary(0);
    const ino = 2 ** 48;
    const truncate = { type: FrameType.TRUNCATE, truncateSeq: 1, length: 4 * MIB };
    for (const fields of [
      { type: FrameType.READ, ino, length: 10 },
      { type: FrameType.EXTENTS, ino },
      { type: FrameType.SYNC, ino },
      { ...truncate, ino },
      { ...truncate, ino: 1, aux: 2.5 },
      { ...truncate, ino: 1, aux: Number.POSITIVE_INFINITY },
    ]) {
      const error = await errorOf(cluster.ask(primary, { pg: 0, epoch: 1, ...fields }));
      assert.equal(error.errorName, 'EINVAL', JSON.stringify(fields));
    }
    assert.equal((await cluster.read(0, 1, 0, 10)).length, 10);
  });

  it('copy from chunk to chunk, of whichever server, on behalf of a client', async () => {
    const data = bytes(100_000);
    const sources = Array.from({ length: 4 }, (_, chunk) => chunk);
    // Of four neighbouring chunks, each in another group, some are led by the server of the target and some are not.
    for (const chunk of sources) await cluster.write(pgOfChunk(7, chunk, 4), 7, chunk, data.subarray(chunk));
    const copy = (chunk: number, length: number, more: Partial<CopySource> = {}) => {
      const source = packCopySource({ ino: 7, chunk, offset: 5, truncateSeq: 0, ...more });
      const fields = { type: FrameType.COPY, pg: 1, ino: 8, chunk, offset: 10, length };
      return cluster.call(fields, source);
    };
    for (const chunk of sources) {
      const reply = await copy(chunk, 50_000);
      assert.equal(reply.header.aux, 50_000);
      assert.ok(reply.header.versionSeq > 0);
      const expected = Buffer.concat([Buffer.alloc(10), data.subarray(chunk + 5, chunk + 50_005)]);
      assert.deepEqual(await cluster.read(1, 8, chunk, 4 * MIB), expected);
    }
    // Beyond the end of the source are zeros; a source without data leaves a hole.
    await copy(0, 120_000);
    const longer = await cluster.read(1, 8, 0, 4 * MIB);
    assert.deepEqual(longer, Buffer.concat([Buffer.alloc(10), data.subarray(5), Buffer.alloc(20_005)]));
    assert.equal((await copy(0, 120_000, { chunk: 9 })).header.aux, -120_000);
    assert.equal((await errorOf(copy(0, 100, { truncateSeq: 3 }))).errorName, 'EOPNOTSUPP');
    assert.equal((await errorOf(copy(0, 5 * MIB))).errorName, 'EINVAL');
    assert.equal((await errorOf(copy(0, 100, { offset: 4 * MIB - 50 }))).errorName, 'EINVAL');
  });

  it('ask for the truncates that a client knows of before they serve it', async () => {
    await cluster.write(2, 9, 0, bytes(5000));
    const behind = await errorOf(cluster.read(2, 9, 0, 5000, { truncateSeq: 3 }));
    assert.ok(behind instanceof FrameError);
    assert.equal(behind.fields.truncateSeq, 0);
    const truncate = { type: FrameType.TRUNCATE, pg: 2, ino: 9, aux: 1000, length: 4 * MIB };
    const reply = await cluster.call({ ...truncate, truncateSeq: 3 });
    assert.equal(reply.header.aux, -4000);
    assert.equal((await cluster.call({ ...truncate, aux: 0, truncateSeq: 3 })).header.aux, 0);
    assert.equal((await cluster.read(2, 9, 0, 5000, { truncateSeq: 3 })).length, 1000);
  });

  it('purge an inode on all replicas and say so', async () => {
    await cluster.write(0, 11, 0, bytes(5000));
    const purge = { pg: 0, ino: 11, truncateSeq: 0, truncateFrom: 0, chunkSize: 0 };
    cluster.meta.purge(cluster.meta.primary(0), purge);
    await cluster.meta.when(() => cluster.meta.purged.length > 0);
    assert.deepEqual(cluster.meta.purged, [{ pg: 0, ino: 11, truncateSeq: 0 }]);
    assert.equal((await cluster.read(0, 11, 0, 5000)).length, 0);
  });

  it('go on when one dies, and copy to it what it missed', async () => {
    const before = bytes(300_000);
    for (let pg = 0; pg < 4; pg++) await cluster.write(pg, 5, pg, before, { flags: FRAME_FLAG_SYNC });
    await cluster.stopServer(1);
    const after = bytes(200_000);
    for (let pg = 0; pg < 4; pg++) {
      await cluster.write(pg, 5, pg, after, { offset: 100_000 });
      await cluster.write(pg, 6, pg, after);
    }
    const truncate = {
      type: FrameType.TRUNCATE,
      pg: 0,
      ino: 6,
      aux: 50_000,
      length: 4 * MIB,
      truncateSeq: 1,
    };
    await cluster.call(truncate);
    await cluster.startServer(1);
    await cluster.meta.when(() => cluster.meta.whole);
    await cluster.stopServer(2);
    await cluster.stopServer(3);
    // Two of three are gone: reads go on, from what was copied.
    for (let pg = 0; pg < 4; pg++) {
      assert.equal(cluster.meta.primary(pg), 1);
      const expected = Buffer.concat([before.subarray(0, 100_000), after]);
      assert.deepEqual(await cluster.read(pg, 5, pg, MIB), expected);
      const more = pg === 0 ? { truncateSeq: 1 } : {};
      assert.deepEqual(
        await cluster.read(pg, 6, pg, MIB, more),
        pg === 0 ? after.subarray(0, 50_000) : after,
      );
    }
  });

  it('fill a wiped disk again while they take writes', async () => {
    const written = new Map<number, Buffer>();
    const write = async (chunk: number): Promise<void> => {
      const data = bytes(30_000);
      written.set(chunk, data);
      await cluster.write(1, 3, chunk, data);
    };
    for (let chunk = 0; chunk < 100; chunk++) await write(chunk);
    const server = cluster.meta.primary(1);
    await cluster.stopServer(server);
    await cluster.wipe(server);
    await cluster.startServer(server);
    for (let chunk = 20; chunk < 150; chunk++) await write(chunk);
    await cluster.meta.when(() => cluster.meta.whole);
    assert.equal(cluster.meta.primary(1), server);
    for (const [chunk, data] of written) assert.deepEqual(await cluster.read(1, 3, chunk, MIB), data);
  });

  it('keep what was synced when all die at once', async () => {
    const data = bytes(70_000);
    for (let pg = 0; pg < 4; pg++) await cluster.write(pg, 8, 0, data, { flags: FRAME_FLAG_SYNC });
    await Promise.all([1, 2, 3].map((id) => cluster.stopServer(id)));
    await Promise.all([1, 2, 3].map((id) => cluster.startServer(id)));
    for (let pg = 0; pg < 4; pg++) assert.deepEqual(await cluster.read(pg, 8, 0, MIB), data);
    await cluster.meta.when(() => cluster.meta.whole);
  });

  it('write several runs of a chunk by one operation, which every replica holds after a restart, too', async () => {
    const before = bytes(20_000);
    const first = await cluster.write(1, 9, 0, before);
    const runs = [
      { start: 100, end: 300 },
      { start: 5000, end: 14_000 },
      { start: 30_000, end: 30_001 },
    ];
    const data = bytes(9201);
    const payload = Buffer.concat([packTable(runs), data]);
    const fields = { type: FrameType.WRITE_EXTENTS, pg: 1, ino: 9, chunk: 0, flags: FRAME_FLAG_SYNC };
    const { header } = await cluster.call(fields, payload);
    assert.equal(header.aux, 1, 'newly allocated');
    assert.equal(header.versionSeq, first.header.versionSeq + 1);
    const expected = Buffer.alloc(30_001);
    before.copy(expected);
    data.copy(expected, 100, 0, 200);
    data.copy(expected, 5000, 200, 9200);
    data.copy(expected, 30_000, 9200);
    assert.deepEqual(await cluster.read(1, 9, 0, MIB), expected);
    const primary = cluster.meta.primary(1);
    await cluster.stopServer(primary);
    assert.deepEqual(await cluster.read(1, 9, 0, MIB), expected);
    await cluster.startServer(primary);
    await cluster.meta.when(() => cluster.meta.whole);
    const beyond = Buffer.concat([packTable([{ start: 8 * MIB, end: 8 * MIB + 1 }]), bytes(1)]);
    assert.equal((await errorOf(cluster.call(fields, beyond))).errorName, 'EINVAL');
  });

  it('let writes wait while too few replicas are in-sync, and reads go on', async () => {
    const data = bytes(1000);
    await cluster.write(0, 4, 0, data);
    await cluster.stopServer(2);
    await cluster.stopServer(3);
    assert.deepEqual(await cluster.read(0, 4, 0, 1000), data);
    const { epoch } = cluster.meta.pg(0);
    const write = { type: FrameType.WRITE, pg: 0, ino: 4, epoch };
    assert.equal((await errorOf(cluster.ask(1, write, bytes(10), 200))).errorName, 'DEADLINE_EXCEEDED');
    const waiting = cluster.ask(1, { ...write, offset: 1000 }, data);
    await cluster.startServer(3);
    await waiting;
    assert.deepEqual(await cluster.read(0, 4, 0, 2000), Buffer.concat([data, data]));
  });

  it('repair a damaged block from another replica before they answer a read', async () => {
    const data = bytes(50_000);
    await cluster.write(3, 6, 1, data, { flags: FRAME_FLAG_SYNC });
    const primary = cluster.meta.primary(3);
    await damage(path.join(cluster.dataDir(primary), 'log'), data.subarray(20_000, 20_032));
    assert.deepEqual(await cluster.read(3, 6, 1, MIB), data);
    // It was written anew: the replicas' copies are not needed any more.
    await cluster.stopServer((primary % 3) + 1);
    await cluster.stopServer(((primary + 1) % 3) + 1);
    assert.deepEqual(await cluster.read(3, 6, 1, MIB), data);
  });

  it('copy all that can be read, though the only copy has a damaged block, and no bytes that are not its own', async () => {
    const [data, other] = [bytes(50_000), bytes(50_000)];
    await cluster.write(0, 6, 0, data, { flags: FRAME_FLAG_SYNC });
    await cluster.write(0, 7, 0, other, { flags: FRAME_FLAG_SYNC });
    await cluster.stopServer(2);
    await cluster.stopServer(3);
    await damage(path.join(cluster.dataDir(1), 'log'), data.subarray(20_000, 20_032));
    for (const id of [2, 3]) await cluster.wipe(id);
    for (const id of [2, 3]) await cluster.startServer(id);
    await cluster.meta.when(() => cluster.meta.whole);
    await cluster.stopServer(1);
    assert.deepEqual(await cluster.read(0, 7, 0, MIB), other);
    assert.deepEqual(await cluster.read(0, 6, 0, 16_384), data.subarray(0, 16_384));
    assert.deepEqual(await cluster.read(0, 6, 0, MIB, { offset: 20_480 }), data.subarray(20_480));
    assert.equal((await errorOf(cluster.read(0, 6, 0, 1, { offset: 20_479 }))).errorName, 'EIO');
    await cluster.write(0, 6, 0, data.subarray(16_384, 20_480), { offset: 16_384 });
    assert.deepEqual(await cluster.read(0, 6, 0, MIB), data);
  });

  it('find the metaserver again when it was away', async () => {
    const { meta } = cluster;
    const port = Number(meta.address.split(':')[1]);
    await cluster.write(0, 4, 0, bytes(10));
    meta.stop();
    await meta.start(port);
    const data = bytes(1000);
    await cluster.write(0, 4, 0, data);
    assert.deepEqual(await cluster.read(0, 4, 0, 1000), data);
    await meta.when(() => meta.whole);
  });

  it('report a replica whose connection breaks, and take it back', async () => {
    const primary = cluster.meta.primary(0);
    const replica = cluster.meta.pg(0).replicas.find(({ server }) => server !== primary)!.server;
    await cluster.stopServer(replica);
    await cluster.meta.when(() => cluster.meta.state(0, replica) === ReplicaState.REPLICA_OUT);
    await cluster.write(0, 4, 0, bytes(10));
    await cluster.startServer(replica);
    await cluster.meta.when(() => cluster.meta.whole);
  });
});

describe('reserved space', function () {
  this.timeout(60_000);

  it('takes no room from others that it was promised, is written on full disks, and a wiped replica has it again', async () => {
    const cluster = new TestCluster(3, 2, 2);
    cluster.capacityLimitBytes = 120 * MIB;
    await cluster.start(1, 2, 3);
    const reserve = (chunk: number, length: number) =>
      cluster.call({ type: FrameType.RESERVE, pg: 0, ino: 7, chunk, length });
    try {
      const kept = 5;
      for (let chunk = 0; chunk < kept; chunk++) {
        assert.equal((await reserve(chunk, 4 * MIB)).header.aux, 4 * MIB);
        assert.equal((await reserve(chunk, 4 * MIB)).header.aux, 0);
      }
      const data = bytes(MIB);
      let refused: HoldfastError | undefined;
      for (let chunk = 0; !refused && chunk < 300; chunk++) {
        await cluster.write(0, 5, chunk, data).catch((error: HoldfastError) => {
          refused = error;
        });
      }
      assert.equal(refused?.errorName, 'ENOSPC');
      assert.equal((await errorOf(reserve(kept, 4 * MIB))).errorName, 'ENOSPC');
      assert.deepEqual(await cluster.read(0, 7, 1, 4 * MIB), Buffer.alloc(0));
      for (let chunk = 0; chunk < kept - 1; chunk++) {
        for (let at = 0; at < 4; at++) {
          const { header } = await cluster.write(0, 7, chunk, data, { offset: at * MIB });
          assert.equal(header.aux, 0);
        }
      }
      assert.deepEqual(cluster.meta.failures, [], 'no replica has refused what its primary took');
      const victim = cluster.meta
        .pg(0)
        .replicas.find(({ server }) => server !== cluster.meta.primary(0))!.server;
      await cluster.stopServer(victim);
      await cluster.wipe(victim);
      await cluster.startServer(victim);
      await cluster.meta.when(() => cluster.meta.whole);
      await cluster.stopAll();
      const [first, ...others] = await Promise.all([1, 2, 3].map((id) => chunksOn(cluster.dataDir(id))));
      assert.equal(first?.filter(({ ino, bytes }) => ino === 7 && bytes === 4 * MIB).length, kept);
      for (const other of others) assert.deepEqual(other, first);
    } finally {
      await cluster.close();
    }
  });

  it('and writes that come all at once until the disks are full cost no replica its place', async () => {
    const pgs = 6;
    const cluster = new TestCluster(3, pgs, 2);
    cluster.capacityLimitBytes = 120 * MIB;
    await cluster.start(1, 2, 3);
    const data = bytes(MIB / 2);
    let full = 0;
    const refused = (error: HoldfastError): void => {
      assert.equal(error.errorName, 'ENOSPC');
      full++;
    };
    const worker = async (id: number): Promise<void> => {
      const pg = id % pgs;
      const ino = 100 + id;
      for (let chunk = 0; chunk < 12; chunk++) {
        const reserve = { type: FrameType.RESERVE, pg, ino, chunk, length: 2 * MIB };
        if (id % 2 === 0) await cluster.call(reserve).catch(refused);
        for (let at = 0; at < 4; at++)
          await cluster.write(pg, ino, chunk, data, { offset: (at * MIB) / 2 }).catch(refused);
      }
    };
    try {
      await Promise.all(Array.from({ length: 24 }, (_, id) => worker(id)));
      assert.ok(full > 0);
      assert.deepEqual(cluster.meta.failures, []);
      assert.ok(cluster.meta.whole);
    } finally {
      await cluster.close();
    }
  });
});

/** Those of group 0, with what they take. */
async function chunksOn(dir: string): Promise<ChunkInfo[]> {
  const store = await openChunkStore({ dir, clock: systemClock, logger: silentLogger });
  const chunks = store.list(0, undefined, 1000);
  await store.close();
  return chunks;
}

describe('a full disk', function () {
  this.timeout(30_000);

  it('refuses writes with ENOSPC before any replica takes them, and deletes make room', async () => {
    const cluster = new TestCluster(3, 2, 2);
    cluster.capacityLimitBytes = 80 * MIB;
    await cluster.start(1, 2, 3);
    try {
      const data = bytes(MIB);
      let written = 0;
      let refused: HoldfastError | undefined;
      for (; !refused && written < 300; written++) {
        await cluster.write(0, 5, written, data).catch((error: HoldfastError) => {
          refused = error;
        });
      }
      assert.equal(refused?.errorName, 'ENOSPC');
      assert.deepEqual(cluster.meta.failures, []);
      assert.ok(cluster.meta.whole);
      assert.deepEqual(await cluster.read(0, 5, 0, MIB), data);
      const purge = { pg: 0, ino: 5, truncateSeq: 0, truncateFrom: 0, chunkSize: 0 };
      cluster.meta.purge(cluster.meta.primary(0), purge);
      await cluster.meta.when(() => cluster.meta.purged.length > 0);
      const retry = async (): Promise<void> => {
        await cluster.write(0, 6, 0, data).catch(retry);
      };
      await retry();
    } finally {
      await cluster.close();
    }
  });
});
