import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ChunkIndex } from '../../chunkserver/store/chunk-index.js';
import { newExtent } from '../../chunkserver/store/extents.js';
import { LmdbIndexDb } from '../../chunkserver/store/lmdb-index.js';
import { systemClock } from '../../common/clock.js';
import { createPrng } from '../../common/prng.js';
import { DEFAULT_CHUNK_SIZE_BYTES, DEFAULT_PG_COUNT } from '../../proto/types.js';
import { anonymousMib } from '../lab/processes.js';

const UUID = '00000000-0000-4000-8000-000000000000';
const BLOCK_BYTES = 4096;
const SEGMENT_BYTES = 64 * 2 ** 20;
const MIB = 2 ** 20;
/** Entries between checkpoints, as the store has them. */
const CHECKPOINT_CHUNKS = 8192;
const READS = 100_000;
const GOAL_MIB = 300;
const GOAL_START_S = 5;

/** What the data consists of: files of this size, written in pieces of that. */
const CONTENTS = [
  { name: '1 GiB files in 1 MiB writes', fileBytes: 2 ** 30, pieceBytes: 2 ** 20 },
  { name: '64 KiB files', fileBytes: 2 ** 16, pieceBytes: 2 ** 16 },
];

/**
 * Memory and time of a chunkserver's index for `gb` of data: entries are made through the real index, checkpoint by
 * checkpoint, without a byte of data; another process opens it and reads at random.
 */
export async function indexFigures(dir: string, gb: number): Promise<string[]> {
  const lines: string[] = [];
  for (const [number, content] of CONTENTS.entries()) {
    const at = join(dir, `index-${number}`);
    mkdirSync(at);
    const chunks = await build(at, gb * 1e9, content);
    const bytes = statSync(join(at, 'data.mdb')).size;
    const args = [
      '--single-threaded-gc',
      fileURLToPath(import.meta.url),
      at,
      String(content.fileBytes),
      String(chunks),
    ];
    const { openMs, mib, readUs } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    const what = `chunkserver's index, ${gb} GB in ${content.name}`;
    lines.push(
      `| ${what}: chunks, file | ${chunks.toLocaleString('en-US')}, ${Math.round(bytes / MIB)} MiB | |`,
      `| ${what}: opened in | ${(openMs / 1000).toFixed(2)} s | ${GOAL_START_S} s |`,
      `| ${what}: resident without page cache behind ${READS.toLocaleString('en-US')} random reads, ${readUs.toFixed(0)} us each | ${mib.toFixed(0)} MiB | ${GOAL_MIB} MiB |`,
    );
  }
  return lines;
}

interface Content {
  fileBytes: number;
  pieceBytes: number;
}

/** Where chunk `number` of all lies. */
function placeOf(number: number, fileBytes: number): { pg: number; ino: number; chunk: number } {
  const perFile = Math.max(1, Math.floor(fileBytes / DEFAULT_CHUNK_SIZE_BYTES));
  const ino = 2 + Math.floor(number / perFile);
  const chunk = number % perFile;
  return { pg: (ino * 31 + chunk) % DEFAULT_PG_COUNT, ino, chunk };
}

async function build(dir: string, totalBytes: number, { fileBytes, pieceBytes }: Content): Promise<number> {
  const db = new LmdbIndexDb(dir);
  const index = new ChunkIndex(db, UUID);
  const chunkBytes = Math.min(fileBytes, DEFAULT_CHUNK_SIZE_BYTES);
  const chunks = Math.floor(totalBytes / chunkBytes);
  const crcs = new Uint32Array(pieceBytes / BLOCK_BYTES).map((_, i) => i * 0x9e37_79b1);
  let position = 0;
  const checkpoint = (): Promise<unknown> => {
    const segment = 1 + Math.floor(position / SEGMENT_BYTES);
    return index.checkpoint({ segment, offset: position % SEGMENT_BYTES }, () => Promise.resolve(), []);
  };
  for (let number = 0; number < chunks; number++) {
    const key = placeOf(number, fileBytes);
    for (let at = 0; at < chunkBytes; at += pieceBytes) {
      const segment = 1 + Math.floor(position / SEGMENT_BYTES);
      const extent = newExtent(at, pieceBytes, segment, position % SEGMENT_BYTES, crcs);
      index.applyWrite(key.pg, key, extent, { epoch: 1, seq: number + 1 });
      position += pieceBytes;
    }
    if (number % CHECKPOINT_CHUNKS === CHECKPOINT_CHUNKS - 1) await checkpoint();
  }
  await checkpoint();
  await db.close();
  return chunks;
}

async function measure(dir: string, fileBytes: number, chunks: number): Promise<void> {
  const begun = systemClock.now();
  const db = new LmdbIndexDb(dir);
  const index = new ChunkIndex(db, UUID);
  const openMs = systemClock.now() - begun;
  const prng = createPrng(1);
  const readsBegun = systemClock.now();
  for (let i = 0; i < READS; i++) {
    const { pg, ino, chunk } = placeOf(prng.int(chunks), fileBytes);
    if (!index.get(pg, ino, chunk)) throw new Error(`chunk ${ino}/${chunk} is not there`);
  }
  const readUs = ((systemClock.now() - readsBegun) * 1000) / READS;
  console.log(JSON.stringify({ openMs, readUs, mib: anonymousMib(process.pid) }));
  await db.close();
}

const [script, dir, fileBytes, chunks] = process.argv.slice(1);
if (script === fileURLToPath(import.meta.url))
  await measure(dir as string, Number(fileBytes), Number(chunks));
