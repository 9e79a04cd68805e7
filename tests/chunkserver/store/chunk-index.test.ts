import assert from 'node:assert/strict';
import { ChunkIndex } from '../../../chunkserver/store/chunk-index.js';
import { newExtent } from '../../../chunkserver/store/extents.js';
import { MemoryIndexDb } from '../../../chunkserver/store/index-db.js';
import { COMMIT_SLICE_BYTES } from '../../../chunkserver/store/sealed-index-db.js';
import { drained, version } from './harness.js';

const UUID = '11111111-2222-4333-8444-555555555555';
const BLOCK_BYTES = 4096;
/** The checksums of so many blocks make an entry of which a few fill a slice of the commit. */
const BLOCKS = 16_384;
const CHUNKS = 24;

function extentAt(block: number, blocks: number, segment: number) {
  return newExtent(
    block * BLOCK_BYTES,
    blocks * BLOCK_BYTES,
    segment,
    64,
    new Uint32Array(blocks).fill(segment),
  );
}

/** All that the index says, in words. */
function dump(index: ChunkIndex): string[] {
  const lines: string[] = [];
  for (const pg of index.pgs()) {
    const { last, clean } = index.pgState(pg);
    lines.push(`pg ${pg} ${last.epoch}.${last.seq} ${clean}`);
    for (const { ino, truncateSeq } of index.listTruncateSeqs(pg, 0, 1000))
      lines.push(`${ino} ${truncateSeq}`);
    for (const info of index.list(pg, undefined, 1000)) {
      const { extents = [] } = index.get(pg, info.ino, info.chunk) ?? {};
      const places = extents.map(({ start, end, segment, crcs }) => `${start}-${end}@${segment}:${crcs[0]}`);
      lines.push(`${pg}/${info.ino}/${info.chunk} ${info.version.seq} ${info.bytes} ${places.join()}`);
    }
  }
  for (let segment = 1; segment <= 9; segment++)
    lines.push(`segment ${segment}: ${index.movedBytes(segment)}`);
  return [...lines, `${index.liveBytes} live, ${index.compactedBytes} compacted`];
}

/** Changes every chunk, each in a way of its own. */
function changeAll(index: ChunkIndex, round: number): void {
  const segment = 2 + (round % 8);
  for (let ino = 1; ino <= CHUNKS; ino++) {
    const at = version(round * 100 + ino);
    const key = { ino, chunk: 0 };
    if (ino % 5 === 0) index.applyDeleteInode(1, ino, at);
    else if (ino % 5 === 1) index.applyWrite(1, key, extentAt(round, 2, segment), at);
    else if (ino % 5 === 2) index.applyPunch(1, key, round * BLOCK_BYTES, (round + 3) * BLOCK_BYTES, at);
    else if (ino % 5 === 3) index.applyTruncate(1, ino, 4000 * BLOCK_BYTES - round, 2 ** 30, at);
    else index.applyInstall(1, key, { version: at, extents: [extentAt(round, 1, segment)] });
    index.raiseTruncateSeq(1, ino, round);
    index.applied(1, at);
  }
}

describe('a checkpoint of the chunk index', () => {
  it('has every chunk as it was when it began, however the same chunks change while it is written', async () => {
    const db = new MemoryIndexDb();
    const index = new ChunkIndex(db, UUID);
    for (let ino = 1; ino <= CHUNKS; ino++) {
      index.applyWrite(1, { ino, chunk: 0 }, extentAt(0, BLOCKS, 1), version(ino));
      index.setTruncateSeq(1, ino, 1);
      index.applied(1, version(ino));
    }
    const before = dump(index);
    let rounds = 0;
    const change = (): void => changeAll(index, ++rounds);
    let written = false;
    const checkpoint = index
      .checkpoint({ segment: 9, offset: 64 }, async () => change(), [1, 2])
      .then((dead) => {
        written = true;
        return dead;
      });
    change();
    while (!written) {
      await drained();
      if (!written) change();
    }
    assert.deepEqual(await checkpoint, [2], 'what had no live byte when it began');
    assert.ok(rounds > (CHUNKS * BLOCKS * 4) / COMMIT_SLICE_BYTES / 2, `${rounds} rounds came between`);
    const reopened = new ChunkIndex(db.clone(), UUID);
    assert.deepEqual(reopened.replayFrom, { segment: 9, offset: 64 });
    assert.deepEqual(dump(reopened), before);

    const after = dump(index);
    assert.notDeepEqual(after, before);
    await index.checkpoint({ segment: 9, offset: 128 }, async () => undefined, []);
    assert.deepEqual(dump(index), after);
    assert.deepEqual(dump(new ChunkIndex(db.clone(), UUID)), after);
  });
});
