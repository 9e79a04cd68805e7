import type { ChunkApi, FileLayout, Run, Written } from '../../../client/data/api.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { DataRange } from '../../../proto/extents.js';
import type { Lineage } from '../../../proto/lineage.js';
import { pgOfChunk } from '../../../proto/types.js';

export interface WriteCall {
  ino: number;
  chunk: number;
  offset: number;
  length: number;
  sync: boolean;
}

interface Stored {
  ino: number;
  chunk: number;
  pg: number;
  data: Buffer;
}

/**
 * Chunkservers in memory. What was not synced is lost by crash(). Writes can be held back and made to fail; two writes
 * under way over the same bytes are an error, and a write that a truncate overtook is refused.
 */
export class MemoryChunks implements ChunkApi {
  readonly pgCount: number;
  readonly writes: WriteCall[] = [];
  readonly punches: WriteCall[] = [];
  readonly reserves: WriteCall[] = [];
  /** Ranges that were copied without passing through the client. */
  readonly copies: WriteCall[] = [];
  /** How many runs each message with several of them brought. */
  readonly gathered: number[] = [];
  readonly syncs: number[] = [];
  readonly reads: { ino: number; chunk: number; offset: number; length: number }[] = [];
  inFlight = 0;
  maxInFlight = 0;
  /** What a write fails with, if anything. */
  failWrite: ((call: WriteCall) => Error | undefined) | undefined;
  failReserve: ((call: WriteCall) => Error | undefined) | undefined;
  failCopy: ((ino: number, chunk: number) => Error | undefined) | undefined;
  failSync: ((pg: number) => Error | undefined) | undefined;
  #stored = new Map<string, Stored>();
  #durable = new Map<string, Stored>();
  readonly #truncated = new Map<string, number>();
  readonly #underWay = new Set<WriteCall>();
  #gate: Deferred<void> | undefined;
  readonly #lineageListeners: ((pgs: readonly number[]) => void)[] = [];
  #syncGate: Deferred<void> | undefined;
  /** The epoch of all groups; crash() begins another lineage. */
  #epoch = 1;
  #lineage = { since: 1, former: 0 };
  #seq = 0;
  /** The newest operation that is durable, by group. */
  readonly #synced = new Map<number, { epoch: number; seq: number }>();
  /** The same when the present lineage began. */
  #boundaries = new Map<number, { epoch: number; seq: number }>();

  constructor(pgCount = 8) {
    this.pgCount = pgCount;
  }

  /** Writes wait until the returned function is called. */
  hold(): () => void {
    const gate = deferred<void>();
    this.#gate = gate;
    return () => {
      this.#gate = undefined;
      gate.resolve();
    };
  }

  /** The same for syncs. */
  holdSyncs(): () => void {
    const gate = deferred<void>();
    this.#syncGate = gate;
    return () => {
      this.#syncGate = undefined;
      gate.resolve();
    };
  }

  /** All servers are killed, and come back with all that they had. */
  kill(): void {
    const all = { epoch: this.#epoch, seq: this.#seq };
    this.#boundaries = new Map(Array.from({ length: this.pgCount }, (_, pg) => [pg, all]));
    this.#lineage = { since: ++this.#epoch, former: this.#lineage.since };
  }

  /** Mounts hear of new lineages. */
  tellLineage(): void {
    for (const listener of this.#lineageListeners)
      listener(Array.from({ length: this.pgCount }, (_, pg) => pg));
  }

  onNewLineage(listener: (pgs: readonly number[]) => void): void {
    this.#lineageListeners.push(listener);
  }

  /** All servers lose power: only what was synced stays. */
  crash(): void {
    this.kill();
    this.#boundaries = new Map(this.#synced);
    this.#stored = new Map(
      [...this.#durable].map(([key, one]) => [key, { ...one, data: Buffer.from(one.data) }]),
    );
  }

  pgOf(ino: number, chunk: number): number {
    return pgOfChunk(ino, chunk, this.pgCount);
  }

  async read(file: FileLayout, chunk: number, offset: number, length: number): Promise<Buffer> {
    this.reads.push({ ino: file.ino, chunk, offset, length });
    await Promise.resolve();
    this.#applyTruncates(file, chunk);
    const data = this.#stored.get(`${file.ino}/${chunk}`)?.data ?? Buffer.alloc(0);
    return Buffer.from(data.subarray(offset, offset + length));
  }

  /** As the servers copy: absent data is a hole, what the source lacks at its end reads as zeros. */
  async copy(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    from: { file: FileLayout; chunk: number; offset: number },
  ): Promise<Written> {
    const failure = this.failCopy?.(file.ino, chunk);
    if (failure) throw failure;
    const data = await this.read(from.file, from.chunk, from.offset, length);
    this.reads.pop();
    const written = await this.write(
      file,
      chunk,
      offset,
      [Buffer.concat([data, Buffer.alloc(length - data.length)])],
      false,
    );
    this.copies.push(this.writes.pop() as WriteCall);
    return written;
  }

  async write(
    file: FileLayout,
    chunk: number,
    offset: number,
    data: readonly Buffer[],
    sync: boolean,
  ): Promise<Written> {
    const bytes = Buffer.concat(data);
    const call = { ino: file.ino, chunk, offset, length: bytes.length, sync };
    for (const other of this.#underWay) {
      const sameChunk = other.ino === file.ino && other.chunk === chunk;
      if (sameChunk && other.offset < offset + bytes.length && offset < other.offset + other.length) {
        throw new Error('two writes over the same bytes are under way');
      }
    }
    if (offset + bytes.length > file.chunkSize) throw new Error('a write crosses its chunk');
    this.writes.push(call);
    this.#underWay.add(call);
    this.inFlight++;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    try {
      await (this.#gate?.promise ?? Promise.resolve());
      const failure = this.failWrite?.(call);
      if (failure) throw failure;
      this.#applyTruncates(file, chunk);
      this.#refuseOlder(file, chunk);
      const version = { epoch: this.#epoch, seq: ++this.#seq };
      return { allocated: this.#store(file.ino, chunk, offset, bytes, sync), version };
    } finally {
      this.inFlight--;
      this.#underWay.delete(call);
    }
  }

  /** All runs are one operation: none lands when one of them is to fail. */
  async writeRuns(file: FileLayout, chunk: number, runs: readonly Run[], sync: boolean): Promise<Written> {
    this.gathered.push(runs.length);
    const all = runs.map(({ start, parts }) => this.write(file, chunk, start, parts, sync));
    const written = await Promise.all(all);
    const allocated = written.reduce((sum, one) => sum + one.allocated, 0);
    return { allocated, version: (written.at(-1) as Written).version };
  }

  /** Zeros count as data here: only where nothing was ever written is a hole. */
  async punch(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    sync = false,
  ): Promise<Written> {
    this.punches.push({ ino: file.ino, chunk, offset, length, sync });
    await (this.#gate?.promise ?? Promise.resolve());
    this.#applyTruncates(file, chunk);
    const { data } = this.#stored.get(`${file.ino}/${chunk}`) ?? {};
    data?.fill(0, offset, Math.min(data.length, offset + length));
    if (sync) this.#makeDurable(this.pgOf(file.ino, chunk));
    return { allocated: 0, version: { epoch: this.#epoch, seq: ++this.#seq } };
  }

  /** What is reserved counts from then on, whatever becomes of it. */
  async reserve(file: FileLayout, chunk: number, offset: number, length: number): Promise<Written> {
    const call = { ino: file.ino, chunk, offset, length, sync: false };
    this.inFlight++;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    await (this.#gate?.promise ?? Promise.resolve());
    this.inFlight--;
    const failure = this.failReserve?.(call);
    if (failure) throw failure;
    this.#applyTruncates(file, chunk);
    this.#refuseOlder(file, chunk);
    const before = this.#space(file.ino, chunk);
    this.reserves.push(call);
    const allocated = this.#space(file.ino, chunk) - before;
    return { allocated, version: { epoch: this.#epoch, seq: ++this.#seq } };
  }

  /** How much of a chunk is stored or reserved: both begin at its start in the tests that count it. */
  #space(ino: number, chunk: number): number {
    const kept = this.reserves.filter((call) => call.ino === ino && call.chunk === chunk);
    return Math.max(this.chunk(ino, chunk).length, ...kept.map(({ offset, length }) => offset + length));
  }

  async ranges(file: FileLayout, chunk: number, _?: unknown, of = 'data'): Promise<DataRange[]> {
    await Promise.resolve();
    this.#applyTruncates(file, chunk);
    const end = of === 'data' ? this.chunk(file.ino, chunk).length : this.#space(file.ino, chunk);
    return end > 0 ? [{ start: 0, end }] : [];
  }

  async nextChunk(file: FileLayout, first: number, last: number): Promise<number | undefined> {
    for (let chunk = first; chunk <= last; chunk++) {
      this.#applyTruncates(file, chunk);
      if (this.chunk(file.ino, chunk).length > 0) return chunk;
    }
    return undefined;
  }

  async sync(pg: number): Promise<Lineage> {
    this.syncs.push(pg);
    await this.#syncGate?.promise;
    await Promise.resolve();
    const failure = this.failSync?.(pg);
    if (failure) throw failure;
    this.#makeDurable(pg);
    return { ...this.#lineage, boundary: this.#boundaries.get(pg) ?? { epoch: 0, seq: 0 } };
  }

  truncateAhead(file: FileLayout, firstChunk: number, lastChunk: number): void {
    for (let chunk = firstChunk; chunk <= lastChunk; chunk++) this.#applyTruncates(file, chunk);
  }

  /** What a chunk holds now. */
  chunk(ino: number, chunk: number): Buffer {
    return this.#stored.get(`${ino}/${chunk}`)?.data ?? Buffer.alloc(0);
  }

  #store(ino: number, chunk: number, offset: number, bytes: Buffer, sync: boolean): number {
    const key = `${ino}/${chunk}`;
    const pg = this.pgOf(ino, chunk);
    const old = this.#stored.get(key)?.data ?? Buffer.alloc(0);
    const before = this.#space(ino, chunk);
    const data = Buffer.alloc(Math.max(old.length, offset + bytes.length));
    old.copy(data);
    bytes.copy(data, offset);
    this.#stored.set(key, { ino, chunk, pg, data });
    if (sync) this.#makeDurable(pg);
    return this.#space(ino, chunk) - before;
  }

  #makeDurable(pg: number): void {
    this.#synced.set(pg, { epoch: this.#epoch, seq: this.#seq });
    for (const [key, one] of this.#stored) {
      if (one.pg === pg) this.#durable.set(key, { ...one, data: Buffer.from(one.data) });
    }
  }

  /** As ChunkIo does after NEED_TRUNCATE. */
  #applyTruncates(file: FileLayout, chunk: number): void {
    const pg = this.pgOf(file.ino, chunk);
    const key = `${pg}/${file.ino}`;
    const known = this.#truncated.get(key) ?? 0;
    if (file.truncateSeq <= known) return;
    for (const { seq, from } of file.truncates) if (seq > known) this.#cut(pg, file, from);
    this.#truncated.set(key, file.truncateSeq);
  }

  /** As a primary does. */
  #refuseOlder(file: FileLayout, chunk: number): void {
    const known = this.#truncated.get(`${this.pgOf(file.ino, chunk)}/${file.ino}`) ?? 0;
    if (file.truncateSeq < known) throw new HoldfastError('CUT');
  }

  #cut(pg: number, file: FileLayout, from: number): void {
    for (const stores of [this.#stored, this.#durable]) {
      for (const one of stores.values()) {
        if (one.pg !== pg || one.ino !== file.ino) continue;
        const keep = Math.max(0, from - one.chunk * file.chunkSize);
        if (keep < one.data.length) one.data = Buffer.from(one.data.subarray(0, keep));
      }
    }
  }
}
