import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { openChunkStore } from '../../../chunkserver/store/open.js';
import { systemClock } from '../../../common/clock.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { blockCrcs } from '../../../proto/block-crc.js';
import { errorFromCode } from '../../../proto/errors.js';
import { FRAME_FLAG_SYNC } from '../../../proto/frame-header.js';
import type { CheckedPage, PgTaskDone } from '../../../proto/gen/cluster.js';
import { eventually } from '../../lab/eventually.js';
import { TestCluster } from './test-cluster.js';

const prng = createPrng(11);
const CHUNK_BYTES = 4 * 1024 * 1024;

function bytes(length: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) data[i] = prng.int(256);
  return data;
}

/** Flips a bit at each place where the file has `mark`. @returns how often */
async function flip(file: string, mark: Buffer): Promise<number> {
  const handle = await open(file, 'r+');
  try {
    const content = await handle.readFile();
    let count = 0;
    for (let at = content.indexOf(mark); at >= 0; at = content.indexOf(mark, at + 1), count++) {
      await handle.write(Buffer.from([(content[at] as number) ^ 4]), 0, 1, at);
    }
    return count;
  } finally {
    await handle.close();
  }
}

describe('the comparison of replicas', function () {
  this.timeout(60_000);
  let cluster: TestCluster;

  beforeEach(async () => {
    cluster = new TestCluster(3, 2, 2);
    await cluster.start(1, 2, 3);
  });
  afterEach(() => cluster.close());

  /** Checks all of a group. */
  async function check(
    pg: number,
    options: { repair?: boolean; contents?: boolean } = {},
  ): Promise<CheckedPage[]> {
    const { repair = false, contents = true } = options;
    const pages: CheckedPage[] = [];
    let after = { afterIno: 0, afterChunk: 0 };
    for (;;) {
      const body = { $case: 'check' as const, value: { ...after, contents, repair } };
      const done = await cluster.meta.task(cluster.meta.primary(pg), pg, body);
      assert.equal(done.error, 0, done.errorText);
      const page = done.page as CheckedPage;
      pages.push(page);
      if (page.end) return pages;
      after = { afterIno: page.lastIno, afterChunk: page.lastChunk };
    }
  }

  const findings = (pages: CheckedPage[]): string[] =>
    pages.flatMap((page) =>
      page.findings.map(
        (each) =>
          `${each.ino}/${each.chunk} at ${each.server}: ${each.kind}${each.repaired ? ', repaired' : ''}`,
      ),
    );

  /** Flips bits in what the index holds of a chunk. Until its checkpoint is over, the server still has that in memory. */
  async function damageIndex(server: number, data: Buffer): Promise<void> {
    const crcs = Buffer.from(blockCrcs(0, data).buffer);
    await eventually('a checkpoint', async () => (await readFile(index(server))).includes(crcs));
    assert.ok((await flip(index(server), crcs)) > 0);
    await eventually('the damage to show', async () => findings(await check(0)).length > 0);
  }

  /** A server of the group that is not its primary. */
  const backup = (pg: number): number => (cluster.meta.primary(pg) % 3) + 1;
  const segment = (server: number): string => path.join(cluster.dataDir(server), 'log', '0000000001.seg');
  const index = (server: number): string => path.join(cluster.dataDir(server), 'index', 'data.mdb');

  it('finds nothing while the group is written to, page by page, and names every inode', async () => {
    const data = bytes(3 * 1024 * 1024);
    for (let ino = 10; ino < 16; ino++) await cluster.write(0, ino, 2, data, { offset: 4096 });
    let stop = false;
    const writer = (async () => {
      for (let i = 0; !stop; i++)
        await cluster.write(0, 10 + (i % 6), 2 + (i % 2), bytes(5000), { offset: i % 9000 });
    })();
    for (const contents of [true, false, true]) {
      const pages = await check(0, { contents });
      assert.deepEqual(findings(pages), []);
      assert.ok(pages.length > 1, 'more than one page');
      assert.ok(pages.every((page) => page.replicas === 3));
      const inos = new Set(pages.flatMap((page) => page.inodes.map(({ ino }) => ino)));
      assert.deepEqual([...inos], [10, 11, 12, 13, 14, 15]);
    }
    stop = true;
    await writer;
    assert.equal(findings(await check(1)).length, 0);
  });

  for (const primary of [true, false]) {
    it(`finds and repairs a flipped bit in a segment of ${primary ? 'the primary' : 'another replica'}`, async () => {
      const data = bytes(100_000);
      await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
      await cluster.write(0, 8, 0, bytes(100_000), { flags: FRAME_FLAG_SYNC });
      const server = primary ? cluster.meta.primary(0) : backup(0);
      assert.equal(await flip(segment(server), data.subarray(50_000, 50_100)), 1);
      assert.deepEqual(findings(await check(0, { contents: false })), []);
      assert.deepEqual(findings(await check(0)), [`7/0 at ${server}: damaged`]);
      assert.deepEqual(findings(await check(0, { repair: true })), [`7/0 at ${server}: damaged, repaired`]);
      assert.deepEqual(findings(await check(0)), []);
      assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
    });

    it(`finds and repairs a flipped bit in the index of ${primary ? 'the primary' : 'another replica'}`, async () => {
      const data = bytes(8192);
      const server = primary ? cluster.meta.primary(0) : backup(0);
      await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
      await damageIndex(server, data);
      // A write upon it neither fails nor hides the damage.
      const more = bytes(100);
      await cluster.write(0, 7, 0, more, { offset: 4000 });
      assert.deepEqual(findings(await check(0)), [`7/0 at ${server}: damaged`]);
      assert.deepEqual(findings(await check(0, { repair: true })), [`7/0 at ${server}: damaged, repaired`]);
      assert.deepEqual(findings(await check(0)), []);
      more.copy(data, 4000);
      assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
    });
  }

  it('repairs by a read what the index of the primary has lost', async () => {
    const data = bytes(8192);
    const server = cluster.meta.primary(0);
    await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
    await damageIndex(server, data);
    assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
    assert.deepEqual(findings(await check(0)), []);
  });

  it('takes the content of the majority where one replica has another one', async () => {
    const data = bytes(5000);
    const server = backup(0);
    await cluster.write(0, 7, 0, data, { flags: FRAME_FLAG_SYNC });
    await cluster.stopServer(server);
    const store = await openChunkStore({
      dir: cluster.dataDir(server),
      clock: systemClock,
      logger: silentLogger,
    });
    const content = (await store.readChunk(0, { ino: 7, chunk: 0 }))!;
    const extents = [{ offset: 0, data: bytes(5000) }];
    await store.install(0, { ino: 7, chunk: 0 }, { ...content, extents });
    await store.close();
    await cluster.startServer(server);
    await cluster.meta.when(() => cluster.meta.whole);
    assert.deepEqual(findings(await check(0)), [`7/0 at ${server}: differs`]);
    assert.deepEqual(findings(await check(0, { repair: true })), [`7/0 at ${server}: differs, repaired`]);
    assert.deepEqual(findings(await check(0)), []);
    assert.deepEqual(await cluster.read(0, 7, 0, CHUNK_BYTES), data);
  });

  it('discards what nobody reaches, unless it was written to since', async () => {
    await cluster.write(0, 7, 0, bytes(5000));
    await cluster.write(0, 7, 3, bytes(5000));
    await cluster.write(0, 9, 1, bytes(5000));
    const [page] = await check(0);
    const { versionEpoch, versionSeq } = page as CheckedPage;
    const discard = (ino: number, from: number): Promise<PgTaskDone> => {
      const value = { ino, from, chunkSize: CHUNK_BYTES, versionEpoch, versionSeq };
      return cluster.meta.task(cluster.meta.primary(0), 0, { $case: 'discard', value });
    };
    assert.equal((await discard(7, 2000)).error, 0);
    assert.equal((await cluster.read(0, 7, 0, CHUNK_BYTES)).length, 2000);
    assert.equal((await cluster.read(0, 7, 3, CHUNK_BYTES)).length, 0);
    await cluster.write(0, 9, 1, bytes(10));
    assert.equal(errorFromCode((await discard(9, 0)).error).errorName, 'EAGAIN');
    assert.equal((await cluster.read(0, 9, 1, CHUNK_BYTES)).length, 5000);
    const [after] = await check(0);
    assert.deepEqual(
      (after as CheckedPage).inodes.map(({ ino, lastChunk, lastEnd }) => [ino, lastChunk, lastEnd]),
      [
        [7, 0, 2000],
        [9, 1, 5000],
      ],
    );
    assert.deepEqual(findings([after as CheckedPage]), []);
  });

  it('refuses who is not the primary', async () => {
    await cluster.write(0, 7, 0, bytes(10));
    const body = {
      $case: 'check' as const,
      value: { afterIno: 0, afterChunk: 0, contents: true, repair: false },
    };
    const done = await cluster.meta.task(backup(0), 0, body);
    assert.equal(errorFromCode(done.error).errorName, 'NOT_PRIMARY');
    const unknown = await cluster.meta.task(cluster.meta.primary(0), 0, undefined);
    assert.equal(errorFromCode(unknown.error).errorName, 'PROTOCOL');
  });
});
