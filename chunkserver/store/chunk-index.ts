import type { Position } from '../../common/segment-log-format.js';
import { HoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import type { ChunkInfo, ChunkKey, PgState, Version } from './chunk-store.js';
import { compareVersions } from './chunk-store.js';
import {
  type ChunkState,
  coveredBytes,
  decodeChunkHead,
  decodeChunkState,
  type Extent,
  LOST_CHUNK,
  LOST_SEGMENT,
  type OnLive,
  replaceRange,
  replaceRanges,
} from './extents.js';
import { type Entry, entriesOf, type Generation, newGeneration } from './generation.js';
import { chunkOfKey, INO_MAX, type IndexDb, indexKey, inoOfKey, pgOfKey, Table } from './index-db.js';
import { compareKeys, type OverlayKey } from './overlay.js';
import { type Coverage, coverage, reserveGaps, withoutReserved } from './reserved.js';
import { DAMAGED, SealedIndexDb } from './sealed-index-db.js';
import { SegmentUsage } from './segment-usage.js';

/** Raised with every change of the index. */
const INDEX_FORMAT_VERSION = 2;

const UINT32_MAX = 0xffff_ffff;
/** Decoded chunks kept beside the changed ones. */
const CACHE_CHUNKS = 8192;
const CACHE_EXTENTS = 400_000;
const NEVER: Version = { epoch: 0, seq: 0 };

/**
 * Where every byte of every chunk lies: a table in IndexDb, and before it in memory what changed since the last
 * checkpoint. Its content is a function of the log's records up to the last applied one; all changes are synchronous.
 *
 * A checkpoint writes the changes and the log position that they reach in one transaction; the log must be durable up
 * to there before, so that no durable index entry points at bytes that a power cut can take.
 */
export class ChunkIndex {
  /** Replay starts here; undefined: with the first record. */
  readonly replayFrom: Position | undefined;
  private current = newGeneration();
  private flushing: Generation | undefined;
  private readonly cache = new Map<string, ChunkState>();
  private cachedExtents = 0;
  private readonly pgStates = new Map<number, PgState>();
  private readonly usage = new SegmentUsage();
  private readonly db: SealedIndexDb;
  /** Entries that were found damaged since the start. */
  damaged = 0;
  /** What lost chunks took is counted anew by the next start. */
  private recount = false;

  /** @throws Error when the index is of another disk or format, or its first entry is damaged */
  constructor(
    db: IndexDb,
    private readonly uuid: string,
  ) {
    this.db = new SealedIndexDb(db);
    this.replayFrom = this.readMeta();
    for (const { key, value } of this.db.range(indexKey(Table.PG_STATE, 0), indexKey(Table.SEGMENT, 0))) {
      if (value === DAMAGED) {
        // As if it were here for the first time: what it holds is compared with the others'.
        this.damaged++;
        this.pgStates.set(pgOfKey(key), { last: NEVER, clean: false });
        continue;
      }
      const last = { epoch: value.readDoubleLE(0), seq: value.readDoubleLE(8) };
      this.pgStates.set(pgOfKey(key), { last, clean: value[16] === 1 });
    }
    this.readUsage();
  }

  private readUsage(): void {
    const segments: number[] = [];
    for (const { key, value } of this.db.range(indexKey(Table.SEGMENT, 0), indexKey(Table.META, 0))) {
      if (value === DAMAGED) this.damaged++;
      else segments.push(pgOfKey(key));
      if (value === DAMAGED || !this.usage.decode(pgOfKey(key), value)) this.recount = true;
    }
    if (!this.recount) return;
    this.recount = false;
    for (const segment of segments) this.current.segments.add(segment);
    this.usage.clear();
    for (const { value } of this.db.range(indexKey(Table.CHUNK, 0), indexKey(Table.TRUNCATE_SEQ, 0))) {
      if (value === DAMAGED) continue; // found, and reported, when it is read
      for (const extent of decodeChunkState(value).extents) this.countExtent(extent, 1);
    }
  }

  /** Bytes that extents cover. */
  get liveBytes(): number {
    return this.usage.bytes;
  }

  /** Bytes of log that they take when all is compacted, at most. */
  get compactedBytes(): number {
    return this.usage.compactedBytes;
  }

  /** Of these what reserved bytes will take when they are written, in pages. */
  get reservedBytes(): number {
    return this.usage.reservedBytes;
  }

  /** Changed chunks, inodes and extents that wait for the next checkpoint: what replay and memory have to carry. */
  get dirty(): { entries: number; extents: number } {
    const entries = this.current.chunks.size + this.current.truncates.size + this.current.pgs.size;
    return { entries, extents: this.current.extents };
  }

  get(pg: number, ino: number, chunk: number): ChunkState | undefined {
    const change = this.current.chunks.get(pg, ino, chunk) ?? this.flushing?.chunks.get(pg, ino, chunk);
    if (change) return change.value;
    const cacheKey = `${pg}/${ino}/${chunk}`;
    const cached = this.cache.get(cacheKey);
    if (cached) return cached;
    const value = this.db.get(indexKey(Table.CHUNK, pg, ino, chunk));
    if (!value) return undefined;
    if (value === DAMAGED) return this.lose(pg, ino, chunk);
    const state = decodeChunkState(value);
    this.remember(cacheKey, state);
    return state;
  }

  /** The stored entry is damaged: what memory still has of it is kept, else everything is lost until it is repaired. */
  private lose(pg: number, ino: number, chunk: number): ChunkState {
    this.damaged++;
    const kept = this.cache.get(`${pg}/${ino}/${chunk}`);
    if (!kept) this.recount = true;
    this.set(pg, ino, chunk, kept ?? LOST_CHUNK);
    return kept ?? LOST_CHUNK;
  }

  private remember(cacheKey: string, state: ChunkState): void {
    this.cache.set(cacheKey, state);
    this.cachedExtents += state.extents.length;
    for (const [oldest, old] of this.cache) {
      if (this.cache.size <= CACHE_CHUNKS && this.cachedExtents <= CACHE_EXTENTS) return;
      this.cache.delete(oldest);
      this.cachedExtents -= old.extents.length;
    }
  }

  private set(pg: number, ino: number, chunk: number, state: ChunkState | undefined): void {
    const cacheKey = `${pg}/${ino}/${chunk}`;
    const cached = this.cache.get(cacheKey);
    if (cached) {
      this.cache.delete(cacheKey);
      this.cachedExtents -= cached.extents.length;
    }
    this.current.extents += (state?.extents.length ?? 0) - this.dirtyExtents(pg, ino, chunk);
    this.current.chunks.set(pg, ino, chunk, { value: state });
  }

  private dirtyExtents(pg: number, ino: number, chunk: number): number {
    return this.current.chunks.get(pg, ino, chunk)?.value?.extents.length ?? 0;
  }

  private readonly onLive: OnLive = (segment, bytes, extents) => {
    if (segment === LOST_SEGMENT) return;
    this.usage.add(segment, bytes, extents);
    this.current.segments.add(segment);
  };

  /** Counts a whole extent as live (1), or as live no more (-1). */
  private countExtent({ segment, start, end }: Extent, sign: 1 | -1): void {
    this.onLive(segment, sign * (end - start), sign);
  }

  /** Lets the extent take the place of what the chunk had there. Returns the bytes newly covered. */
  applyWrite(pg: number, key: ChunkKey, extent: Extent, version: Version | undefined): number {
    return this.applyExtents(pg, key, version, (old) =>
      replaceRange(old, extent.start, extent.end, extent, this.onLive),
    );
  }

  /** applyWrite() for several extents, which ascend and do not overlap. */
  applyWrites(pg: number, key: ChunkKey, added: readonly Extent[], version: Version): number {
    return this.applyExtents(pg, key, version, (old) => replaceRanges(old, added, this.onLive));
  }

  private applyExtents(
    pg: number,
    key: ChunkKey,
    version: Version | undefined,
    change: (old: readonly Extent[]) => readonly Extent[],
  ): number {
    const old = this.get(pg, key.ino, key.chunk);
    const before = this.usage.bytes;
    const extents = change(old?.extents ?? []);
    const delta = this.usage.bytes - before;
    const state = { version: version ?? old?.version ?? NEVER, extents, bytes: (old?.bytes ?? 0) + delta };
    this.set(pg, key.ino, key.chunk, state);
    return delta;
  }

  /** Makes [start, end) of the chunk a hole. Returns the change of covered bytes, at most 0. */
  applyPunch(pg: number, key: ChunkKey, start: number, end: number, version: Version): number {
    const old = this.get(pg, key.ino, key.chunk);
    if (!old) return 0;
    const before = this.usage.bytes;
    const extents = replaceRange(old.extents, start, end, undefined, this.onLive);
    const delta = this.usage.bytes - before;
    this.set(pg, key.ino, key.chunk, { version, extents, bytes: old.bytes + delta });
    return delta;
  }

  /** Has space kept for what of [start, end) takes none. Returns the bytes newly covered. */
  applyReserve(pg: number, key: ChunkKey, start: number, end: number, version: Version): number {
    return this.applyExtents(pg, key, version, (old) => reserveGaps(old, start, end, this.onLive));
  }

  /** What of the ranges takes space in the chunk. */
  coverage(pg: number, { ino, chunk }: ChunkKey, ranges: readonly DataRange[]): Coverage {
    return coverage(this.get(pg, ino, chunk)?.extents ?? [], ranges);
  }

  /** The first chunk of the inode from `key.chunk` on that has extents. @param reserved those that are reserved count */
  nextWithData(
    pg: number,
    key: ChunkKey,
    reserved: boolean,
  ): { chunk: number; extents: readonly Extent[] } | undefined {
    const from = { ino: key.ino, sub: key.chunk };
    for (const { sub } of this.merged(Table.CHUNK, 'chunks', pg, from, { ino: key.ino, sub: UINT32_MAX })) {
      const { extents: all = [] } = this.get(pg, key.ino, sub) ?? {};
      const extents = reserved ? all : withoutReserved(all);
      if (extents.length > 0) return { chunk: sub, extents };
    }
    return undefined;
  }

  /** Replaces the chunk, or removes it. Returns the change of covered bytes. */
  applyInstall(
    pg: number,
    key: ChunkKey,
    content: { version: Version; extents: Extent[] } | undefined,
  ): number {
    const before = this.usage.bytes;
    const old = this.get(pg, key.ino, key.chunk);
    for (const extent of old?.extents ?? []) this.countExtent(extent, -1);
    if (!content) {
      if (old) this.set(pg, key.ino, key.chunk, undefined);
      return this.usage.bytes - before;
    }
    this.touchPg(pg);
    for (const extent of content.extents) this.countExtent(extent, 1);
    this.set(pg, key.ino, key.chunk, { ...content, bytes: coveredBytes(content.extents) });
    return this.usage.bytes - before;
  }

  /** Cuts the inode to `from` bytes of the file. Returns the change of covered bytes, at most 0. */
  applyTruncate(pg: number, ino: number, from: number, chunkSize: number, version: Version): number {
    const boundary = Math.floor(from / chunkSize);
    const before = this.usage.bytes;
    for (const { ino: _, sub: chunk } of this.keys(pg, { ino, sub: boundary }, { ino, sub: UINT32_MAX })) {
      const state = this.get(pg, ino, chunk);
      const keep = chunk === boundary ? from % chunkSize : 0;
      const extents = replaceRange(state?.extents ?? [], keep, UINT32_MAX, undefined, this.onLive);
      const cut = extents.length > 0 ? { version, extents, bytes: coveredBytes(extents) } : undefined;
      this.set(pg, ino, chunk, cut);
    }
    return this.usage.bytes - before;
  }

  truncateSeq(pg: number, ino: number): number {
    const change = this.current.truncates.get(pg, ino, 0) ?? this.flushing?.truncates.get(pg, ino, 0);
    if (change) return change.value ?? 0;
    const value = this.db.get(indexKey(Table.TRUNCATE_SEQ, pg, ino));
    if (value !== DAMAGED) return value?.readDoubleLE(0) ?? 0;
    throw new HoldfastError('CORRUPT', `pg ${pg} inode ${ino}: the index has lost its truncate number`);
  }

  /** 0 forgets the number. */
  setTruncateSeq(pg: number, ino: number, truncateSeq: number): void {
    if (truncateSeq > 0) this.touchPg(pg);
    this.current.truncates.set(pg, ino, 0, { value: truncateSeq === 0 ? undefined : truncateSeq });
  }

  /** Sets the number unless a larger one is known. */
  raiseTruncateSeq(pg: number, ino: number, truncateSeq: number): void {
    if (truncateSeq > this.truncateSeq(pg, ino)) this.setTruncateSeq(pg, ino, truncateSeq);
  }

  /** Removes the inode's chunks and its truncate number. Returns the change of covered bytes. */
  applyDeleteInode(pg: number, ino: number, version: Version): number {
    const delta = this.applyTruncate(pg, ino, 0, 1, version);
    if (this.truncateSeq(pg, ino) > 0) this.setTruncateSeq(pg, ino, 0);
    this.applied(pg, version);
    return delta;
  }

  listTruncateSeqs(pg: number, afterIno: number, limit: number): { ino: number; truncateSeq: number }[] {
    const found: { ino: number; truncateSeq: number }[] = [];
    const from = { ino: afterIno + 1, sub: 0 };
    for (const { ino, head } of this.merged(Table.TRUNCATE_SEQ, 'truncates', pg, from, END)) {
      if (found.length >= limit) break;
      // A lost number differs from everybody's: whoever recovers takes over the right one.
      found.push({ ino, truncateSeq: head === DAMAGED ? 0 : this.truncateSeq(pg, ino) });
    }
    return found;
  }

  pgState(pg: number): PgState {
    return this.pgStates.get(pg) ?? { last: NEVER, clean: false };
  }

  pgs(): number[] {
    return [...this.pgStates.keys()].sort((a, b) => a - b);
  }

  /** undefined: the group is no longer here. */
  setPgState(pg: number, state: PgState | undefined): void {
    if (state) this.pgStates.set(pg, state);
    else this.pgStates.delete(pg);
    this.current.pgs.add(pg);
  }

  /** A group that has anything here has a state. */
  private touchPg(pg: number): void {
    if (!this.pgStates.has(pg)) this.setPgState(pg, this.pgState(pg));
  }

  /** Notes that an operation of the group was applied. */
  applied(pg: number, version: Version): void {
    const { last, clean } = this.pgState(pg);
    if (!this.pgStates.has(pg) || compareVersions(version, last) > 0)
      this.setPgState(pg, { last: version, clean });
  }

  info(pg: number, key: ChunkKey): ChunkInfo | undefined {
    const state = this.get(pg, key.ino, key.chunk);
    return state && { ino: key.ino, chunk: key.chunk, version: state.version, bytes: state.bytes };
  }

  list(pg: number, after: ChunkKey | undefined, limit: number): ChunkInfo[] {
    const from = after ? { ino: after.ino, sub: after.chunk + 1 } : { ino: 0, sub: 0 };
    const found: ChunkInfo[] = [];
    for (const { ino, sub, head } of this.merged(Table.CHUNK, 'chunks', pg, from, END)) {
      if (found.length >= limit) break;
      if (head === DAMAGED) this.lose(pg, ino, sub);
      const stored = head && head !== DAMAGED ? decodeChunkHead(head) : this.get(pg, ino, sub);
      if (stored) found.push({ ino, chunk: sub, version: stored.version, bytes: stored.bytes });
    }
    return found;
  }

  /** Looks at the inode alone: a removed file is asked for in every group. */
  holds(pg: number, ino: number): boolean {
    if (this.truncateSeq(pg, ino) > 0) return true;
    const to = { ino, sub: UINT32_MAX };
    for (const _ of this.merged(Table.CHUNK, 'chunks', pg, { ino, sub: 0 }, to)) return true;
    return false;
  }

  private keys(pg: number, from: OverlayKey, to: OverlayKey): OverlayKey[] {
    return [...this.merged(Table.CHUNK, 'chunks', pg, from, to)].map(({ ino, sub }) => ({ ino, sub }));
  }

  /** Existing entries in [from, to] ascending; `head` is the stored value where memory has none. */
  private *merged(
    table: number,
    field: 'chunks' | 'truncates',
    pg: number,
    from: OverlayKey,
    to: OverlayKey,
  ): Generator<OverlayKey & { head?: Buffer }> {
    const changes = this.changesBetween(field, pg, from, to);
    let next = 0;
    const start = indexKey(table, pg, from.ino, Math.min(from.sub, UINT32_MAX));
    const end = Buffer.concat([indexKey(table, pg, to.ino, to.sub), Buffer.alloc(1)]);
    for (const { key, value } of this.db.range(start, end)) {
      const stored = { ino: inoOfKey(key), sub: chunkOfKey(key) };
      if (compareKeys(stored, from) < 0) continue;
      let change = changes[next];
      for (; change && compareKeys(change, stored) < 0; change = changes[++next])
        if (change.exists) yield change;
      if (change && compareKeys(change, stored) === 0) {
        next++;
        if (change.exists) yield change;
      } else {
        yield { ...stored, head: value };
      }
    }
    for (const change of changes.slice(next)) if (change.exists) yield change;
  }

  private changesBetween(
    field: 'chunks' | 'truncates',
    pg: number,
    from: OverlayKey,
    to: OverlayKey,
  ): (OverlayKey & { exists: boolean })[] {
    const newer = this.current[field].sorted(pg, from, to);
    const older = this.flushing?.[field].sorted(pg, from, to) ?? [];
    const all = [...older.filter((each) => !this.current[field].get(pg, each.ino, each.sub)), ...newer];
    if (older.length > 0) all.sort(compareKeys);
    return all.map(({ ino, sub, value }) => ({ ino, sub, exists: value.value !== undefined }));
  }

  /** Bytes of log that moving all live bytes of the segment takes, at most; 0: it has none. */
  movedBytes(segment: number): number {
    return this.usage.movedBytes(segment);
  }

  /** Forgets the count of a segment that was unlinked. */
  forgetSegment(segment: number): void {
    this.usage.forget(segment);
    this.current.segments.add(segment);
  }

  /**
   * Writes all changes so far, which reach `position`, durably. One at a time. `beforeCommit` must make the log durable
   * up to the position. Returns the segments that had no live byte at that moment.
   */
  async checkpoint(
    position: Position,
    beforeCommit: () => Promise<void>,
    segments: readonly number[],
  ): Promise<number[]> {
    const generation = this.current;
    this.flushing = generation;
    this.current = newGeneration();
    const dead = segments.filter((segment) => segment < position.segment && !this.usage.isLive(segment));
    const counters = [...generation.pgs].map((pg) => this.pgEntry(pg));
    counters.push(...[...generation.segments].map((segment) => this.segmentEntry(segment)));
    await beforeCommit();
    counters.push(this.metaEntry(position));
    await this.db.commit(entriesOf(counters, generation));
    this.flushing = undefined;
    return dead;
  }

  private pgEntry(pg: number): Entry {
    const key = indexKey(Table.PG_STATE, pg);
    const state = this.pgStates.get(pg);
    if (!state) return { key, value: undefined };
    const value = Buffer.alloc(17);
    value.writeDoubleLE(state.last.epoch, 0);
    value.writeDoubleLE(state.last.seq, 8);
    value[16] = state.clean ? 1 : 0;
    return { key, value };
  }

  private segmentEntry(segment: number): Entry {
    return { key: indexKey(Table.SEGMENT, segment), value: this.usage.encode(segment) };
  }

  private metaEntry(position: Position): { key: Buffer; value: Buffer } {
    const meta = { format: INDEX_FORMAT_VERSION, uuid: this.uuid, recount: this.recount, ...position };
    return { key: indexKey(Table.META, 0), value: Buffer.from(JSON.stringify(meta)) };
  }

  private readMeta(): Position | undefined {
    const value = this.db.get(indexKey(Table.META, 0));
    if (!value) return undefined;
    if (value === DAMAGED) throw new HoldfastError('CORRUPT', 'the index is damaged, or of an older format');
    const meta = JSON.parse(value.toString()) as Position & {
      format: number;
      uuid: string;
      recount: boolean;
    };
    if (meta.format !== INDEX_FORMAT_VERSION) {
      throw new Error(`index format version ${meta.format}; this program knows ${INDEX_FORMAT_VERSION}`);
    }
    if (meta.uuid !== this.uuid)
      throw new Error(`the index belongs to disk ${meta.uuid}, not to ${this.uuid}`);
    this.recount = meta.recount;
    return { segment: meta.segment, offset: meta.offset };
  }
}

const END: OverlayKey = { ino: INO_MAX, sub: UINT32_MAX };
