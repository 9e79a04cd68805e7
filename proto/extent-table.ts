import { crc32c } from '../common/crc32c.js';
import { appendBlockCrcs, blockCount, blockCrcs } from './block-crc.js';
import { HoldfastError } from './errors.js';
import type { DataRange } from './extents.js';

/**
 * Several runs of bytes of one chunk in one payload: WRITE_EXTENTS, REPLICATE_EXTENTS, and the store's record of them.
 * Little-endian: u32 count, then u32 offset in the chunk and u32 length of each run, then the runs' bytes one after the
 * other. Runs ascend, do not overlap, and are not empty.
 */

/** Runs of one payload: what one message may make a server do in one turn. */
export const TABLE_EXTENTS_MAX = 1024;
const HEAD_BYTES = 4;
const ENTRY_BYTES = 8;

/** Bytes before those of the first run. */
export function tableBytes(count: number): number {
  return HEAD_BYTES + count * ENTRY_BYTES;
}

/** What goes before the runs' bytes. */
export function packTable(runs: readonly DataRange[]): Buffer {
  const table = Buffer.allocUnsafe(tableBytes(runs.length));
  table.writeUInt32LE(runs.length, 0);
  let at = HEAD_BYTES;
  for (const { start, end } of runs) {
    table.writeUInt32LE(start, at);
    table.writeUInt32LE(end - start, at + 4);
    at += ENTRY_BYTES;
  }
  return table;
}

/** The runs that a payload brings. @throws HoldfastError PROTOCOL */
export function unpackTable(payload: Buffer): DataRange[] {
  const count = payload.length < HEAD_BYTES ? 0 : payload.readUInt32LE(0);
  if (count === 0 || count > TABLE_EXTENTS_MAX || payload.length < tableBytes(count))
    throw new HoldfastError('PROTOCOL', `a table of ${count} runs`);
  const runs: DataRange[] = [];
  let bytes = tableBytes(count);
  let former = 0;
  for (let at = HEAD_BYTES; runs.length < count; at += ENTRY_BYTES) {
    const start = payload.readUInt32LE(at);
    const length = payload.readUInt32LE(at + 4);
    if (start < former || length === 0) throw new HoldfastError('PROTOCOL', 'runs that do not ascend');
    former = start + length;
    bytes += length;
    runs.push({ start, end: former });
  }
  if (bytes !== payload.length) throw new HoldfastError('PROTOCOL', 'runs that are not their payload');
  return runs;
}

/** CRC-32C of each block that the runs touch, one run after the other. */
export function runCrcs(payload: Buffer, runs: readonly DataRange[]): Uint32Array {
  let blocks = 0;
  for (const { start, end } of runs) blocks += blockCount(start, end);
  const crcs = new Uint32Array(blocks);
  let at = tableBytes(runs.length);
  let filled = 0;
  for (const { start, end } of runs) {
    const ofRun = blockCrcs(start, payload.subarray(at, at + end - start));
    crcs.set(ofRun, filled);
    filled += ofRun.length;
    at += end - start;
  }
  return crcs;
}

/** CRC-32C of bytes with checksum `before`, followed by the payload, whose blocks have the checksums `crcs`. */
export function appendTableCrcs(
  before: number,
  payload: Buffer,
  runs: readonly DataRange[],
  crcs: Uint32Array,
): number {
  let crc = crc32c(payload.subarray(0, tableBytes(runs.length)), before);
  let used = 0;
  for (const { start, end } of runs) {
    const blocks = blockCount(start, end);
    crc = appendBlockCrcs(crc, start, end - start, crcs.subarray(used, used + blocks));
    used += blocks;
  }
  return crc;
}
