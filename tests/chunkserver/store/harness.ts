import type { ChunkContent, ChunkStore, Version } from '../../../chunkserver/store/chunk-store.js';
import { MemoryIndexDb } from '../../../chunkserver/store/index-db.js';
import { type ChunkStoreOptions, openChunkStore } from '../../../chunkserver/store/open.js';
import { META_BYTES } from '../../../chunkserver/store/records.js';
import type { Clock, Timer } from '../../../common/clock.js';
import { crc32c } from '../../../common/crc32c.js';
import { silentLogger } from '../../../common/logger.js';
import { MemoryDisk, type Survival } from '../../../common/memory-disk.js';
import { createPrng } from '../../../common/prng.js';
import { SegmentLog } from '../../../common/segment-log.js';
import type { DataRange } from '../../../proto/extents.js';

/** Time that passes when the test says so. */
export class ManualClock implements Clock {
  private time = 0;
  private timers: { at: number; fn: () => void }[] = [];

  now(): number {
    return this.time;
  }

  wall(): { sec: number; nsec: number } {
    return { sec: Math.floor(this.time / 1000), nsec: 0 };
  }

  after(ms: number, fn: () => void): Timer {
    const timer = { at: this.time + ms, fn };
    this.timers.push(timer);
    return {
      cancel: () => {
        this.timers = this.timers.filter((each) => each !== timer);
      },
    };
  }

  every(): Timer {
    throw new Error('not used by the store');
  }

  /** Lets time pass, with everything that timers start run to its end. */
  async advance(ms: number): Promise<void> {
    const until = this.time + ms;
    await drained();
    for (;;) {
      const next = this.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.timers = this.timers.filter((timer) => timer !== next);
      this.time = next.at;
      next.fn();
      await drained();
    }
    this.time = until;
  }
}

/** All I/O of the memory disk and index is done in microtasks: one macrotask later nothing is under way. */
export function drained(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export const DIR = '/store';
export const SEGMENT_BYTES = 32 * 1024;

/** One machine with a chunk store, which can lose its power and come back. */
export class Machine {
  disk = new MemoryDisk();
  db = new MemoryIndexDb();
  clock = new ManualClock();
  failures: unknown[] = [];
  store!: ChunkStore;

  constructor(private readonly options: Partial<ChunkStoreOptions> = {}) {}

  async boot(): Promise<ChunkStore> {
    const { db, failures } = this;
    this.store = await openChunkStore({
      dir: DIR,
      clock: this.clock,
      logger: silentLogger,
      segmentBytes: SEGMENT_BYTES,
      onFailure: (error) => failures.push(error),
      disk: this.disk.mounted(),
      openIndex: () => db,
      lock: async () => async () => undefined,
      newUuid: () => '11111111-2222-4333-8444-555555555555',
      ...this.options,
    });
    return this.store;
  }

  /** The old store's objects live on as those of a dead machine: their disk fails, their index and clock are orphans. */
  async crash(survival: Survival, seed: number): Promise<ChunkStore> {
    this.disk.crash(survival, createPrng(seed));
    this.db = this.db.clone();
    this.clock = new ManualClock();
    this.failures = [];
    return this.boot();
  }

  segmentFiles(): Promise<string[]> {
    return this.disk.list(`${DIR}/log`);
  }
}

export function version(seq: number, epoch = 1): Version {
  return { epoch, seq };
}

/**
 * What the store's data takes, each extent with a header of its own, counted by reading all of it; reserved space also with
 * those that its pages will have.
 */
export async function compactedBytes(store: ChunkStore): Promise<number> {
  let bytes = 0;
  let reserved = 0;
  for (const pg of store.pgs()) {
    for (const info of store.list(pg, undefined, 1e6)) {
      const content = (await store.readChunk(pg, info)) as ChunkContent;
      for (const { data } of content.extents) bytes += data.length + SegmentLog.recordBytes(META_BYTES);
      for (const { start, end } of reservedRanges(content)) {
        bytes += end - start + SegmentLog.recordBytes(META_BYTES);
        reserved += end - start;
      }
    }
  }
  return bytes + Math.ceil(reserved / 4096) * SegmentLog.recordBytes(META_BYTES);
}

/** Bytes that differ from call to call and from place to place. */
export function pattern(seed: number, length: number): Buffer {
  const data = Buffer.alloc(length);
  for (let i = 0; i < length; i++) data[i] = (seed * 31 + i * 7 + (i >> 8)) & 0xff;
  return data;
}

const STORED = 1;
const RESERVED = 2;

/** Never changed in place, so that a copy of the model is cheap. */
interface ModelChunk {
  version: Version;
  bytes: Buffer;
  /** STORED where a byte was written, RESERVED where space is kept for it, else 0. */
  covered: Buffer;
  size: number;
  text?: string;
}

export const CHUNK_BYTES = 16 * 1024;

/** What a chunk store should hold, in the most naive way. */
export class Model {
  chunks = new Map<string, ModelChunk>();
  truncateSeqs = new Map<string, number>();
  last = new Map<number, Version>();

  clone(): Model {
    const copy = new Model();
    copy.chunks = new Map(this.chunks);
    copy.truncateSeqs = new Map(this.truncateSeqs);
    copy.last = new Map(this.last);
    return copy;
  }

  write(pg: number, ino: number, chunk: number, offset: number, data: Buffer, at: Version): number {
    this.last.set(pg, at);
    const name = `${pg}/${ino}/${chunk}`;
    const old = this.chunks.get(name);
    const bytes = old ? Buffer.from(old.bytes) : Buffer.alloc(CHUNK_BYTES);
    const covered = old ? Buffer.from(old.covered) : Buffer.alloc(CHUNK_BYTES);
    data.copy(bytes, offset);
    covered.fill(STORED, offset, offset + data.length);
    const size = sum(covered);
    if (data.length > 0) this.chunks.set(name, { version: at, bytes, covered, size });
    return data.length > 0 ? size - (old?.size ?? 0) : 0;
  }

  punch(pg: number, ino: number, chunk: number, offset: number, length: number, at: Version): number {
    this.last.set(pg, at);
    const name = `${pg}/${ino}/${chunk}`;
    const old = this.chunks.get(name);
    if (!old) return 0;
    const bytes = Buffer.from(old.bytes).fill(0, offset, offset + length);
    const covered = Buffer.from(old.covered).fill(0, offset, offset + length);
    this.chunks.set(name, { version: at, bytes, covered, size: sum(covered) });
    return sum(covered) - old.size;
  }

  reserve(pg: number, ino: number, chunk: number, offset: number, length: number, at: Version): number {
    this.last.set(pg, at);
    const name = `${pg}/${ino}/${chunk}`;
    const old = this.chunks.get(name);
    const bytes = old?.bytes ?? Buffer.alloc(CHUNK_BYTES);
    const covered = old ? Buffer.from(old.covered) : Buffer.alloc(CHUNK_BYTES);
    for (let i = offset; i < offset + length; i++) covered[i] ||= RESERVED;
    this.chunks.set(name, { version: at, bytes, covered, size: sum(covered) });
    return sum(covered) - (old?.size ?? 0);
  }

  truncate(pg: number, ino: number, from: number, seq: number, at: Version): number {
    const key = `${pg}/${ino}`;
    this.last.set(pg, at);
    this.truncateSeqs.set(key, Math.max(seq, this.truncateSeqs.get(key) ?? 0));
    return this.cut(key, from, at);
  }

  private cut(inode: string, from: number, at: Version): number {
    let delta = 0;
    for (const [name, state] of [...this.chunks]) {
      const chunk = Number(name.slice(inode.length + 1));
      if (!name.startsWith(`${inode}/`) || (chunk + 1) * CHUNK_BYTES <= from) continue;
      const keep = Math.max(0, from - chunk * CHUNK_BYTES);
      const covered = Buffer.from(state.covered).fill(0, keep);
      const size = sum(covered);
      if (size === 0) this.chunks.delete(name);
      else
        this.chunks.set(name, { version: at, bytes: Buffer.from(state.bytes).fill(0, keep), covered, size });
      delta += size - state.size;
    }
    return delta;
  }

  deleteInode(pg: number, ino: number, at: Version): number {
    this.last.set(pg, at);
    this.truncateSeqs.delete(`${pg}/${ino}`);
    return this.cut(`${pg}/${ino}`, 0, at);
  }

  install(pg: number, ino: number, chunk: number, content: ChunkContent | undefined): void {
    this.chunks.delete(`${pg}/${ino}/${chunk}`);
    if (!content) return;
    const bytes = Buffer.alloc(CHUNK_BYTES);
    const covered = Buffer.alloc(CHUNK_BYTES);
    for (const { offset, data } of content.extents) {
      data.copy(bytes, offset);
      covered.fill(STORED, offset, offset + data.length);
    }
    for (const { start, end } of content.reserved ?? [])
      for (let i = start; i < end; i++) covered[i] ||= RESERVED;
    const state = { version: content.version, bytes, covered, size: sum(covered) };
    this.chunks.set(`${pg}/${ino}/${chunk}`, state);
    const key = `${pg}/${ino}`;
    const seq = Math.max(content.truncateSeq, this.truncateSeqs.get(key) ?? 0);
    if (seq > 0) this.truncateSeqs.set(key, seq);
  }

  /** One line a chunk, inode and group, to compare with dumpStore(). */
  dump(): string[] {
    const lines: string[] = [];
    for (const [name, chunk] of this.chunks) {
      chunk.text ??= modelText(name, chunk);
      lines.push(chunk.text);
    }
    for (const [inode, seq] of this.truncateSeqs) lines.push(`truncate ${inode} ${seq}`);
    for (const [pg, at] of this.last) lines.push(`pg ${pg} ${at.epoch}.${at.seq}`);
    return lines.sort();
  }
}

function modelText(name: string, { version: at, bytes, covered, size }: ModelChunk): string {
  const stored = runsOf(covered, STORED).map(({ start, end }) => runText(start, bytes.subarray(start, end)));
  const reserved = runsOf(covered, RESERVED).map(reservedText);
  return chunkText(name, at, size, [...stored, ...reserved]);
}

/** Where all bytes have a value. */
function runsOf(bytes: Buffer, value: number): DataRange[] {
  const runs: DataRange[] = [];
  for (let start = bytes.indexOf(value); start >= 0; start = bytes.indexOf(value, runs.at(-1)?.end)) {
    let end = start;
    while (end < bytes.length && bytes[end] === value) end++;
    runs.push({ start, end });
  }
  return runs;
}

function sum(covered: Buffer): number {
  let total = 0;
  for (const byte of covered) total += byte === 0 ? 0 : 1;
  return total;
}

/** Where a chunk has space kept. */
export function reservedRanges({ extents, reserved = [] }: ChunkContent): DataRange[] {
  const covered = Buffer.alloc(CHUNK_BYTES);
  for (const { start, end } of reserved) covered.fill(RESERVED, start, end);
  for (const { offset, data } of extents) covered.fill(STORED, offset, offset + data.length);
  return runsOf(covered, RESERVED);
}

function reservedText({ start, end }: DataRange): string {
  return `${start}+${end - start} reserved`;
}

function runText(from: number, data: Buffer): string {
  return `${from}+${data.length}#${crc32c(data)}`;
}

function chunkText(name: string, at: Version, bytes: number, runs: string[]): string {
  return `chunk ${name} ${at.epoch}.${at.seq} ${bytes} ${runs.join(' ')}`;
}

/** All that a store holds, in the words of Model.dump(); every byte is read and verified. */
export async function dumpStore(store: ChunkStore): Promise<string[]> {
  const lines: string[] = [];
  for (const pg of store.pgs()) {
    const { last } = store.pgState(pg);
    if (last.seq > 0) lines.push(`pg ${pg} ${last.epoch}.${last.seq}`);
    for (const { ino, truncateSeq } of store.listTruncateSeqs(pg, 0, 1e6)) {
      lines.push(`truncate ${pg}/${ino} ${truncateSeq}`);
    }
    for (const { ino, chunk, bytes } of store.list(pg, undefined, 1e6)) {
      const content = (await store.readChunk(pg, { ino, chunk })) as ChunkContent;
      const runs: { from: number; data: Buffer }[] = [];
      for (const { offset, data } of content.extents) {
        const previous = runs.at(-1);
        if (previous && previous.from + previous.data.length === offset) {
          previous.data = Buffer.concat([previous.data, data]);
        } else runs.push({ from: offset, data });
      }
      const texts = runs.map(({ from, data }) => runText(from, data));
      const reserved = reservedRanges(content).map(reservedText);
      lines.push(chunkText(`${pg}/${ino}/${chunk}`, content.version, bytes, [...texts, ...reserved]));
    }
  }
  return lines.sort();
}
