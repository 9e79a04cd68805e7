import { assert } from '../../common/assert.js';
import { crc32c } from '../../common/crc32c.js';
import type { Logger } from '../../common/logger.js';
import {
  LogFailedError,
  LogOverloadedError,
  MAX_RECORD_BYTES,
  type Position,
  SegmentLog,
} from '../../common/segment-log.js';
import { appendBlockCrcs, appendCrc, blockCount, blockCrcs } from '../../proto/block-crc.js';
import { HoldfastError } from '../../proto/errors.js';
import { appendTableCrcs, runCrcs } from '../../proto/extent-table.js';
import { type ChunkRanges, type DataRange, joinRanges } from '../../proto/extents.js';
import type { ChunkIndex } from './chunk-index.js';
import type {
  ChunkContent,
  ChunkInfo,
  ChunkKey,
  ChunkStore,
  PgState,
  ReadResult,
  Usage,
  Version,
} from './chunk-store.js';
import type { ExtentData, ExtentReader } from './extent-reader.js';
import { type ChunkState, isLost, newExtent } from './extents.js';
import type { Maintenance } from './maintenance.js';
import { encodeMeta, encodeRanges, META_BYTES, RecordType } from './records.js';
import { installExtents, moreReserved, runExtents, withPlaceless } from './replay.js';
import { type Coverage, reservedRuns } from './reserved.js';
import type { SpaceMeter } from './space.js';

/** What one write or install may carry, so that it fits one record. */
export const MAX_WRITE_BYTES = MAX_RECORD_BYTES - 64 * 1024;
/** Offsets in a chunk are 32 bits on disk. */
const MAX_CHUNK_BYTES = 0xffff_ffff;
/** dropPg removes so many chunks between two turns of the event loop. */
const DROP_SLICE_CHUNKS = 256;

export interface StoreParts {
  log: SegmentLog;
  index: ChunkIndex;
  reader: ExtentReader;
  space: SpaceMeter;
  maintenance: Maintenance;
  logger: Logger;
  diskUuid: string;
  clusterId: string;
  /** Writes the cluster id durably. */
  saveClusterId(clusterId: string): Promise<void>;
  /** Closes the index and gives the directory back. */
  release(): Promise<void>;
}

/**
 * The chunk store over one log: every change is one record, appended and applied to the index in the same turn, so the
 * order of calls, of records and of changes is one. The log holds the truth; the index is a function of it.
 */
export class LogChunkStore implements ChunkStore {
  private readonly log: SegmentLog;
  private readonly index: ChunkIndex;
  private cluster: string;
  private adopting: Promise<void> | undefined;
  private closing?: Promise<void>;

  constructor(private readonly parts: StoreParts) {
    this.log = parts.log;
    this.index = parts.index;
    this.cluster = parts.clusterId;
  }

  get diskUuid(): string {
    return this.parts.diskUuid;
  }

  get clusterId(): string {
    return this.cluster;
  }

  async adoptCluster(clusterId: string): Promise<void> {
    // A server may register with the next leader before the first one's answer is on the disk.
    while (this.adopting) await this.adopting;
    if (this.cluster === clusterId) return;
    if (this.cluster !== '') {
      throw new HoldfastError(
        'WRONG_CLUSTER',
        `disk ${this.diskUuid} is of ${this.cluster}, not of ${clusterId}`,
      );
    }
    this.adopting = this.parts.saveClusterId(clusterId).finally(() => {
      this.adopting = undefined;
    });
    await this.adopting;
    this.cluster = clusterId;
  }

  async write(
    pg: number,
    key: ChunkKey,
    offset: number,
    data: Buffer,
    version: Version,
    knownCrcs?: Uint32Array,
  ): Promise<{ allocatedDelta: number }> {
    checkRange(offset, data.length);
    const tight = this.admit(data.length);
    const { ino, chunk } = key;
    const meta = encodeMeta({ pg, ino, chunk, offset, version });
    let allocatedDelta = 0;
    if (data.length === 0) {
      this.append(RecordType.WRITE, [meta]);
    } else {
      const crcs = knownCrcs ?? blockCrcs(offset, data);
      assert(crcs.length === blockCount(offset, offset + data.length), 'each block has a checksum');
      const place = this.append(
        RecordType.WRITE,
        [meta, data],
        appendBlockCrcs(crc32c(meta), offset, data.length, crcs),
      );
      const at = SegmentLog.payloadOffset(place) + META_BYTES;
      const extent = newExtent(offset, data.length, place.segment, at, crcs);
      allocatedDelta = this.index.applyWrite(pg, key, extent, version);
      this.parts.maintenance.noteExtents(pg, key);
    }
    this.index.applied(pg, version);
    await this.finish(tight);
    return { allocatedDelta };
  }

  async writeRuns(
    pg: number,
    key: ChunkKey,
    payload: Buffer,
    runs: readonly DataRange[],
    version: Version,
    knownCrcs?: Uint32Array,
  ): Promise<{ allocatedDelta: number }> {
    const { start, end } = { start: runs[0]?.start ?? -1, end: runs.at(-1)?.end ?? 0 };
    checkRange(start, end - start);
    const tight = this.admit(payload.length);
    const crcs = knownCrcs ?? runCrcs(payload, runs);
    const meta = encodeMeta({ pg, ...chunkOf(key), count: runs.length, version });
    const crc = appendTableCrcs(crc32c(meta), payload, runs, crcs);
    const place = this.append(RecordType.WRITE_EXTENTS, [meta, payload], crc);
    const allocatedDelta = this.index.applyWrites(pg, key, runExtents(place, runs, crcs), version);
    this.parts.maintenance.noteExtents(pg, key, runs.length);
    this.index.applied(pg, version);
    await this.finish(tight);
    return { allocatedDelta };
  }

  punch(
    pg: number,
    key: ChunkKey,
    offset: number,
    length: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }> {
    return this.changeRange(RecordType.PUNCH, pg, key, { start: offset, end: offset + length }, version);
  }

  reserve(
    pg: number,
    key: ChunkKey,
    offset: number,
    length: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }> {
    return this.changeRange(RecordType.RESERVE, pg, key, { start: offset, end: offset + length }, version);
  }

  /** What brings no bytes. */
  private async changeRange(
    type: typeof RecordType.PUNCH | typeof RecordType.RESERVE,
    pg: number,
    key: ChunkKey,
    { start, end }: DataRange,
    version: Version,
  ): Promise<{ allocatedDelta: number }> {
    const { index } = this;
    checkRange(start, end - start);
    const meta = { pg, ...chunkOf(key), offset: start, count: end - start, version };
    this.append(type, [encodeMeta(meta)]);
    const allocatedDelta =
      type === RecordType.PUNCH
        ? index.applyPunch(pg, key, start, end, version)
        : index.applyReserve(pg, key, start, end, version);
    this.parts.maintenance.noteExtents(pg, key);
    index.applied(pg, version);
    await this.finish(false, allocatedDelta < 0);
    return { allocatedDelta };
  }

  coverage(pg: number, key: ChunkKey, ranges: readonly DataRange[]): Coverage {
    return this.index.coverage(pg, key, ranges);
  }

  ranges(pg: number, key: ChunkKey, reserved = false): ChunkRanges | undefined {
    const found = this.index.nextWithData(pg, key, reserved);
    if (found?.extents.some(isLost))
      throw new HoldfastError('CORRUPT', `pg ${pg} inode ${key.ino}: a chunk is lost`);
    return found && { chunk: found.chunk, ranges: joinRanges(found.extents) };
  }

  /** True when the write must be held up until space was reclaimed. @param room that it may not do without */
  private admit(bytes: number, room = 0): boolean {
    if (bytes > MAX_WRITE_BYTES)
      throw new HoldfastError('EINVAL', `more than ${MAX_WRITE_BYTES} bytes at once`);
    const needed = SegmentLog.recordBytes(META_BYTES + bytes);
    const { space, maintenance } = this.parts;
    const { compactedBytes } = this.index;
    const admission = room > space.roomBytes(compactedBytes) ? 'full' : space.admit(needed, compactedBytes);
    if (admission === 'full') {
      maintenance.reclaim();
      throw new HoldfastError('ENOSPC', `disk ${this.diskUuid}`);
    }
    return admission === 'tight';
  }

  private append(type: number, parts: Buffer[], crc?: number): Position {
    if (this.closing) throw new HoldfastError('UNAVAILABLE', 'the store is closed');
    this.parts.maintenance.check();
    this.parts.maintenance.used();
    try {
      const position = this.log.append(type, parts, crc);
      let bytes = 0;
      for (const part of parts) bytes += part.length;
      this.parts.space.appended(SegmentLog.recordBytes(bytes));
      return position;
    } catch (error) {
      throw asStoreError(error);
    }
  }

  /** Resolves when what was appended is with the OS, and maintenance lets new work in. */
  private async finish(tight = false, freed = false): Promise<void> {
    const held = this.parts.maintenance.afterAppend(tight, freed);
    try {
      await this.log.written();
      if (held) await held;
    } catch (error) {
      throw asStoreError(error);
    }
  }

  async truncate(
    pg: number,
    ino: number,
    from: number,
    chunkSize: number,
    truncateSeq: number,
    version: Version,
  ): Promise<{ allocatedDelta: number }> {
    const meta = encodeMeta({ pg, ino, offset: chunkSize, version, from, truncateSeq });
    this.append(RecordType.TRUNCATE, [meta]);
    const allocatedDelta = this.index.applyTruncate(pg, ino, from, chunkSize, version);
    this.index.raiseTruncateSeq(pg, ino, truncateSeq);
    this.index.applied(pg, version);
    await this.finish(false, allocatedDelta < 0);
    return { allocatedDelta };
  }

  truncateSeq(pg: number, ino: number): number {
    return this.index.truncateSeq(pg, ino);
  }

  async deleteInode(pg: number, ino: number, version: Version): Promise<{ allocatedDelta: number }> {
    this.append(RecordType.DELETE_INODE, [encodeMeta({ pg, ino, version })]);
    const allocatedDelta = this.index.applyDeleteInode(pg, ino, version);
    await this.finish(false, allocatedDelta < 0);
    return { allocatedDelta };
  }

  async install(pg: number, key: ChunkKey, content: ChunkContent | undefined): Promise<void> {
    const { ino, chunk } = key;
    if (!content) {
      this.append(RecordType.REMOVE, [encodeMeta({ pg, ino, chunk })]);
      this.index.applyInstall(pg, key, undefined);
      return this.finish();
    }
    const { version, extents, truncateSeq, lost = [], reserved = [] } = content;
    const filled = extents.filter((extent) => extent.data.length > 0);
    for (const { offset, data } of filled) checkRange(offset, data.length);
    const ranges = filled.map(({ offset, data }) => ({ start: offset, end: offset + data.length }));
    const [table, lostTable, reservedTable] = [ranges, lost, reserved].map(encodeRanges) as [
      Buffer,
      Buffer,
      Buffer,
    ];
    const tableBytes = table.length + lostTable.length + reservedTable.length;
    const bytes = filled.reduce((sum, extent) => sum + extent.data.length, tableBytes);
    // Nobody has counted on its room: the last is left to operations.
    const before = this.index.get(pg, ino, chunk)?.extents ?? [];
    const tight = this.admit(bytes, bytes + moreReserved(before, ranges, lost, reserved));
    const counts = { count: filled.length, offset: lost.length, from: reserved.length };
    const meta = encodeMeta({ pg, ino, chunk, ...counts, version, truncateSeq });
    const crcs = filled.map(({ offset, data }) => blockCrcs(offset, data));
    let crc = crc32c(table, crc32c(meta));
    filled.forEach(({ offset, data }, i) => {
      crc = appendBlockCrcs(crc, offset, data.length, crcs[i] as Uint32Array);
    });
    const data = filled.map((each) => each.data);
    const parts = [meta, table, ...data, lostTable, reservedTable];
    const place = this.append(RecordType.INSTALL, parts, crc32c(reservedTable, crc32c(lostTable, crc)));
    const installed = withPlaceless(installExtents(place, ranges, crcs), lost, reserved);
    this.index.applyInstall(pg, key, { version, extents: installed });
    this.index.raiseTruncateSeq(pg, ino, truncateSeq);
    return this.finish(tight);
  }

  async setTruncateSeq(pg: number, ino: number, truncateSeq: number): Promise<void> {
    this.append(RecordType.TRUNCATE_SEQ, [encodeMeta({ pg, ino, truncateSeq })]);
    this.index.setTruncateSeq(pg, ino, truncateSeq);
    await this.finish();
  }

  listTruncateSeqs(pg: number, afterIno: number, limit: number): { ino: number; truncateSeq: number }[] {
    return this.index.listTruncateSeqs(pg, afterIno, limit);
  }

  async read(pg: number, key: ChunkKey, offset: number, length: number): Promise<ReadResult> {
    this.parts.maintenance.used();
    const state = this.index.get(pg, key.ino, key.chunk);
    if (!state) return { version: undefined, data: [], length: 0, crc: 0 };
    const pieces = await this.readExtents(pg, key, state.extents, offset, offset + length);
    return readResult(state.version, offset, pieces);
  }

  readNow(pg: number, key: ChunkKey, offset: number, length: number): ReadResult | undefined {
    this.parts.maintenance.used();
    const state = this.index.get(pg, key.ino, key.chunk);
    const pieces = state && this.parts.reader.readNow(state.extents, offset, offset + length);
    return pieces && readResult(state.version, offset, pieces);
  }

  private async readExtents(...args: Parameters<ExtentReader['read']>): ReturnType<ExtentReader['read']> {
    try {
      return await this.parts.reader.read(...args);
    } catch (error) {
      throw asStoreError(error);
    }
  }

  async readChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined> {
    const state = this.index.get(pg, key.ino, key.chunk);
    if (!state) return undefined;
    const truncateSeq = this.index.truncateSeq(pg, key.ino);
    const end = state.extents.at(-1)?.end ?? 0;
    const pieces = await this.readExtents(pg, key, state.extents, 0, end);
    const extents = pieces.map((piece) => ({ offset: piece.start, data: piece.data }));
    return { version: state.version, extents, truncateSeq, ...reservedOf(state) };
  }

  async salvageChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined> {
    const state = this.index.get(pg, key.ino, key.chunk);
    if (!state) return undefined;
    const truncateSeq = this.index.truncateSeq(pg, key.ino);
    try {
      const { found, lost } = await this.parts.reader.salvage(pg, key, state.extents);
      const extents = found.map(({ start, data }) => ({ offset: start, data }));
      return { version: state.version, extents, truncateSeq, lost, ...reservedOf(state) };
    } catch (error) {
      throw asStoreError(error);
    }
  }

  chunkInfo(pg: number, key: ChunkKey): ChunkInfo | undefined {
    return this.index.info(pg, key);
  }

  holds(pg: number, ino: number): boolean {
    return this.index.holds(pg, ino);
  }

  list(pg: number, after: ChunkKey | undefined, limit: number): ChunkInfo[] {
    return this.index.list(pg, after, limit);
  }

  pgs(): number[] {
    return this.index.pgs();
  }

  pgState(pg: number): PgState {
    return this.index.pgState(pg);
  }

  async setPgState(pg: number, state: PgState): Promise<void> {
    const { last, clean } = state;
    this.append(RecordType.PG_STATE, [encodeMeta({ pg, version: last, offset: clean ? 1 : 0 })]);
    this.index.setPgState(pg, { last, clean });
    await this.finish();
  }

  async dropPg(pg: number): Promise<void> {
    await this.setPgState(pg, { ...this.pgState(pg), clean: false });
    for (;;) {
      const slice = this.list(pg, undefined, DROP_SLICE_CHUNKS);
      if (slice.length === 0) break;
      await Promise.all(slice.map(({ ino, chunk }) => this.install(pg, { ino, chunk }, undefined)));
    }
    for (;;) {
      const slice = this.listTruncateSeqs(pg, 0, DROP_SLICE_CHUNKS);
      if (slice.length === 0) break;
      await Promise.all(slice.map(({ ino }) => this.setTruncateSeq(pg, ino, 0)));
    }
    this.append(RecordType.DROP_PG, [encodeMeta({ pg })]);
    this.index.setPgState(pg, undefined);
    await this.finish();
  }

  async sync(): Promise<void> {
    try {
      await this.log.sync();
    } catch (error) {
      throw asStoreError(error);
    }
  }

  usage(): Usage {
    const { space, maintenance } = this.parts;
    // Nothing that has no room is sent, and so nothing would ask for more.
    if (space.starved(MAX_WRITE_BYTES, this.index.compactedBytes)) maintenance.reclaim();
    return space.usage(this.index.liveBytes, this.index.compactedBytes);
  }

  reservedElsewhere(bytes: number): void {
    this.parts.space.reservedElsewhere = bytes;
  }

  backlogBytes(): number {
    return this.log.pendingBytes;
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async shutDown(): Promise<void> {
    try {
      await this.parts.maintenance.stop();
      await this.log.close();
    } finally {
      await this.parts.release();
    }
  }
}

/** Pieces put together, with zeros between them. */
function readResult(version: Version, offset: number, pieces: readonly ExtentData[]): ReadResult {
  const data: Buffer[] = [];
  let at = offset;
  let crc: number | undefined = 0;
  for (const piece of pieces) {
    if (piece.start > at) {
      data.push(Buffer.alloc(piece.start - at));
      crc = undefined; // that of a hole would take a pass over its zeros
    }
    data.push(piece.data);
    crc =
      crc === undefined || piece.crc === undefined ? undefined : appendCrc(crc, piece.crc, piece.data.length);
    at = piece.end;
  }
  return { version, data, length: at - offset, crc };
}

function reservedOf({ extents }: ChunkState): { reserved?: DataRange[] } {
  const reserved = reservedRuns(extents);
  return reserved.length > 0 ? { reserved } : {};
}

/** Of a larger object, the key alone. */
function chunkOf({ ino, chunk }: ChunkKey): ChunkKey {
  return { ino, chunk };
}

function checkRange(offset: number, length: number): void {
  const valid = Number.isInteger(offset) && offset >= 0 && offset + length <= MAX_CHUNK_BYTES;
  if (!valid) throw new HoldfastError('EINVAL', `bytes ${offset}+${length} of a chunk`);
}

/** The log's errors as those of the table in proto/errors.ts. */
function asStoreError(error: unknown): unknown {
  if (error instanceof HoldfastError) return error;
  if (error instanceof LogOverloadedError) return new HoldfastError('OVERLOADED', error.message);
  if (error instanceof LogFailedError) return new HoldfastError('EIO', error.message);
  return new HoldfastError('EIO', error instanceof Error ? error.message : String(error));
}
