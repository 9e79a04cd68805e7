import type {
  ChunkContent,
  ChunkInfo,
  ChunkKey,
  ChunkStore,
  PgState,
  ReadResult,
  Usage,
  Version,
} from '../../../chunkserver/store/chunk-store.js';
import { HoldfastError } from '../../../proto/errors.js';
import { tableBytes } from '../../../proto/extent-table.js';
import { type ChunkRanges, type DataRange, joinRanges } from '../../../proto/extents.js';

/** A byte that was never written, with space kept for it. */
const RESERVED = 256;

interface MemoryChunk {
  ino: number;
  chunk: number;
  version: Version;
  /** One entry a byte; undefined: hole. */
  bytes: (number | undefined)[];
}

interface Group {
  chunks: Map<string, MemoryChunk>;
  truncateSeqs: Map<number, number>;
  state: PgState;
}

const nameOf = (key: ChunkKey): string => `${key.ino}/${key.chunk}`;
const allocated = (chunk: MemoryChunk): number =>
  chunk.bytes.reduce((sum: number, byte) => sum + (byte === undefined ? 0 : 1), 0);

/** Disks of a memory store: what was done to it, and how much of that a power cut leaves. */
export class MemoryDisk {
  readonly records: ((groups: Map<number, Group>) => number)[] = [];
  durable = 0;

  /** Drops what was not synced, but for the first `kept` records of it. */
  loseUnsynced(kept: number): void {
    this.records.length = Math.min(this.records.length, this.durable + kept);
    this.durable = this.records.length;
  }
}

export interface MemoryStoreOptions {
  disk?: MemoryDisk;
  diskUuid?: string;
  clusterId?: string;
  /** Runs `fn` when an operation is done: hands in delays. Default: at once. */
  complete?: (fn: () => void) => void;
}

/** A chunk store without a disk, naive on purpose: bytes in arrays, a record for each call, rebuilt by replaying them. */
export class MemoryStore implements ChunkStore {
  readonly diskUuid: string;
  clusterId: string;
  /** Chunks whose next read fails, as `pg:ino/chunk`; installing or overwriting heals them. */
  readonly corrupt = new Set<string>();
  capacityBytes = 2 ** 40;
  readonly #disk: MemoryDisk;
  readonly #groups = new Map<number, Group>();
  readonly #complete: (fn: () => void) => void;
  failing: Error | undefined;

  constructor(options: MemoryStoreOptions = {}) {
    this.#disk = options.disk ?? new MemoryDisk();
    this.diskUuid = options.diskUuid ?? 'memory';
    this.clusterId = options.clusterId ?? '';
    this.#complete = options.complete ?? ((fn) => fn());
    for (const record of this.#disk.records) record(this.#groups);
  }

  async adoptCluster(clusterId: string): Promise<void> {
    this.clusterId = clusterId;
  }

  #do<T>(record: (groups: Map<number, Group>) => number, result: (delta: number) => T): Promise<T> {
    if (this.failing) return Promise.reject(this.failing);
    this.#disk.records.push(record);
    const value = result(record(this.#groups));
    return new Promise((resolve) => this.#complete(() => resolve(value)));
  }

  write(pg: number, key: ChunkKey, offset: number, data: Buffer, version: Version) {
    const { ino, chunk: index } = key;
    if (this.usage().freeBytes < data.length) return Promise.reject(new HoldfastError('ENOSPC'));
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        const chunk = group.chunks.get(nameOf(key)) ?? { ino, chunk: index, version, bytes: [] };
        const before = allocated(chunk);
        for (let i = 0; i < data.length; i++) chunk.bytes[offset + i] = data[i];
        chunk.version = version;
        group.chunks.set(nameOf(key), chunk);
        group.state = { ...group.state, last: version };
        return allocated(chunk) - before;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  writeRuns(pg: number, key: ChunkKey, payload: Buffer, runs: readonly DataRange[], version: Version) {
    const { ino, chunk: index } = key;
    if (this.usage().freeBytes < payload.length) return Promise.reject(new HoldfastError('ENOSPC'));
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        const chunk = group.chunks.get(nameOf(key)) ?? { ino, chunk: index, version, bytes: [] };
        const before = allocated(chunk);
        let at = tableBytes(runs.length);
        for (const { start, end } of runs) for (let i = start; i < end; i++) chunk.bytes[i] = payload[at++];
        chunk.version = version;
        group.chunks.set(nameOf(key), chunk);
        group.state = { ...group.state, last: version };
        return allocated(chunk) - before;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  truncate(pg: number, ino: number, from: number, chunkSize: number, truncateSeq: number, version: Version) {
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        let delta = 0;
        for (const chunk of [...group.chunks.values()]) {
          const keep = from - chunk.chunk * chunkSize;
          if (chunk.ino !== ino || keep >= chunkSize) continue;
          const before = allocated(chunk);
          if (keep <= 0) group.chunks.delete(nameOf(chunk));
          else if (chunk.bytes.some((byte, at) => at >= keep && byte !== undefined)) {
            chunk.bytes.length = keep;
            chunk.version = version;
          }
          delta += (keep <= 0 ? 0 : allocated(chunk)) - before;
        }
        group.truncateSeqs.set(ino, Math.max(truncateSeq, group.truncateSeqs.get(ino) ?? 0));
        group.state = { ...group.state, last: version };
        return delta;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  truncateSeq(pg: number, ino: number): number {
    return this.#groups.get(pg)?.truncateSeqs.get(ino) ?? 0;
  }

  deleteInode(pg: number, ino: number, version: Version) {
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        let delta = 0;
        for (const chunk of [...group.chunks.values()]) {
          if (chunk.ino !== ino) continue;
          delta -= allocated(chunk);
          group.chunks.delete(nameOf(chunk));
        }
        group.truncateSeqs.delete(ino);
        group.state = { ...group.state, last: version };
        return delta;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  install(pg: number, key: ChunkKey, content: ChunkContent | undefined): Promise<void> {
    const { ino, chunk: index } = key;
    if (content?.lost?.length) this.corrupt.add(`${pg}:${nameOf(key)}`);
    else this.corrupt.delete(`${pg}:${nameOf(key)}`);
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        if (!content) group.chunks.delete(nameOf(key));
        else {
          const bytes: MemoryChunk['bytes'] = [];
          for (const { start, end } of content.reserved ?? []) reserveCells(bytes, start, end);
          for (const { offset, data } of content.extents)
            for (const [i, byte] of data.entries()) bytes[offset + i] = byte;
          group.chunks.set(nameOf(key), { ino, chunk: index, version: content.version, bytes });
        }
        return 0;
      },
      () => undefined,
    );
  }

  reserve(pg: number, key: ChunkKey, offset: number, length: number, version: Version) {
    const { ino, chunk: index } = key;
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        const chunk = group.chunks.get(nameOf(key)) ?? { ino, chunk: index, version, bytes: [] };
        const before = allocated(chunk);
        reserveCells(chunk.bytes, offset, offset + length);
        chunk.version = version;
        group.chunks.set(nameOf(key), chunk);
        group.state = { ...group.state, last: version };
        return allocated(chunk) - before;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  coverage(pg: number, key: ChunkKey, ranges: readonly DataRange[]) {
    const { bytes = [] } = this.#groups.get(pg)?.chunks.get(nameOf(key)) ?? {};
    const cells = ranges.flatMap(({ start, end }) => bytes.slice(start, end));
    const reserved = cells.filter((cell) => cell === RESERVED).length;
    return { stored: cells.filter((cell) => cell !== undefined).length - reserved, reserved };
  }

  punch(pg: number, { ino, chunk: index }: ChunkKey, offset: number, length: number, version: Version) {
    return this.#do(
      (groups) => {
        const group = groupOf(groups, pg);
        group.state = { ...group.state, last: version };
        const chunk = group.chunks.get(nameOf({ ino, chunk: index }));
        if (!chunk) return 0;
        const before = allocated(chunk);
        const bytes = chunk.bytes.map((byte, at) =>
          at >= offset && at < offset + length ? undefined : byte,
        );
        const punched = { ...chunk, version, bytes };
        group.chunks.set(nameOf(chunk), punched);
        return allocated(punched) - before;
      },
      (allocatedDelta) => ({ allocatedDelta }),
    );
  }

  ranges(pg: number, key: ChunkKey, reserved = false): ChunkRanges | undefined {
    const before =
      key.chunk > 0 ? { ino: key.ino, chunk: key.chunk - 1 } : { ino: key.ino - 1, chunk: 2 ** 32 };
    for (const info of this.list(pg, before, 1e9)) {
      if (info.ino !== key.ino) continue;
      const { bytes = [] } = this.#groups.get(pg)?.chunks.get(nameOf(info)) ?? {};
      const counts = (byte: number | undefined) => byte !== undefined && (reserved || byte !== RESERVED);
      const cells = bytes.flatMap((byte, at) => (counts(byte) ? [{ start: at, end: at + 1 }] : []));
      if (cells.length > 0) return { chunk: info.chunk, ranges: joinRanges(cells) };
    }
    return undefined;
  }

  setTruncateSeq(pg: number, ino: number, truncateSeq: number): Promise<void> {
    return this.#do(
      (groups) => {
        const { truncateSeqs } = groupOf(groups, pg);
        if (truncateSeq === 0) truncateSeqs.delete(ino);
        else truncateSeqs.set(ino, truncateSeq);
        return 0;
      },
      () => undefined,
    );
  }

  listTruncateSeqs(pg: number, afterIno: number, limit: number) {
    return [...(this.#groups.get(pg)?.truncateSeqs ?? [])]
      .filter(([ino]) => ino > afterIno)
      .sort(([a], [b]) => a - b)
      .slice(0, limit)
      .map(([ino, truncateSeq]) => ({ ino, truncateSeq }));
  }

  read(pg: number, key: ChunkKey, offset: number, length: number): Promise<ReadResult> {
    if (this.corrupt.has(`${pg}:${nameOf(key)}`)) return Promise.reject(new HoldfastError('CORRUPT'));
    const chunk = this.#groups.get(pg)?.chunks.get(nameOf(key));
    const bytes = (chunk?.bytes ?? []).slice(offset, offset + length);
    const data =
      bytes.length > 0
        ? [Buffer.from(Array.from(bytes, (byte) => (byte === RESERVED ? 0 : (byte ?? 0))))]
        : [];
    const result = { version: chunk?.version, data, length: bytes.length };
    return new Promise((resolve) => this.#complete(() => resolve(result)));
  }

  readChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined> {
    if (this.corrupt.has(`${pg}:${nameOf(key)}`)) return Promise.reject(new HoldfastError('CORRUPT'));
    const chunk = this.#groups.get(pg)?.chunks.get(nameOf(key));
    let content: ChunkContent | undefined;
    if (chunk) {
      const extents: ChunkContent['extents'] = [];
      chunk.bytes.forEach((byte, offset) => {
        if (byte !== undefined && byte !== RESERVED) extents.push({ offset, data: Buffer.from([byte]) });
      });
      const cells = chunk.bytes.flatMap((byte, at) =>
        byte === RESERVED ? [{ start: at, end: at + 1 }] : [],
      );
      const truncateSeq = this.truncateSeq(pg, key.ino);
      content = { version: chunk.version, extents, truncateSeq, reserved: joinRanges(cells) };
    }
    return new Promise((resolve) => this.#complete(() => resolve(content)));
  }

  /** A chunk that is corrupt here is so as a whole. */
  async salvageChunk(pg: number, key: ChunkKey): Promise<ChunkContent | undefined> {
    const info = this.chunkInfo(pg, key);
    if (!info || !this.corrupt.has(`${pg}:${nameOf(key)}`)) return this.readChunk(pg, key);
    const lost = [{ start: 0, end: info.bytes }];
    return { version: info.version, extents: [], truncateSeq: this.truncateSeq(pg, key.ino), lost };
  }

  chunkInfo(pg: number, key: ChunkKey): ChunkInfo | undefined {
    const chunk = this.#groups.get(pg)?.chunks.get(nameOf(key));
    return chunk && infoOf(chunk);
  }

  holds(pg: number, ino: number): boolean {
    const chunks = this.#groups.get(pg)?.chunks.values() ?? [];
    return this.truncateSeq(pg, ino) > 0 || [...chunks].some((chunk) => chunk.ino === ino);
  }

  list(pg: number, after: ChunkKey | undefined, limit: number): ChunkInfo[] {
    return [...(this.#groups.get(pg)?.chunks.values() ?? [])]
      .filter(({ ino, chunk }) => !after || ino > after.ino || (ino === after.ino && chunk > after.chunk))
      .sort((a, b) => a.ino - b.ino || a.chunk - b.chunk)
      .slice(0, limit)
      .map(infoOf);
  }

  pgs(): number[] {
    return [...this.#groups.keys()].sort((a, b) => a - b);
  }

  pgState(pg: number): PgState {
    return this.#groups.get(pg)?.state ?? { last: { epoch: 0, seq: 0 }, clean: false };
  }

  setPgState(pg: number, state: PgState): Promise<void> {
    return this.#do(
      (groups) => {
        groupOf(groups, pg).state = state;
        return 0;
      },
      () => undefined,
    );
  }

  dropPg(pg: number): Promise<void> {
    return this.#do(
      (groups) => {
        groups.delete(pg);
        return 0;
      },
      () => undefined,
    );
  }

  sync(): Promise<void> {
    if (this.failing) return Promise.reject(this.failing);
    const upTo = this.#disk.records.length;
    return new Promise((resolve) =>
      this.#complete(() => {
        this.#disk.durable = Math.max(this.#disk.durable, upTo);
        resolve();
      }),
    );
  }

  usage(): Usage {
    let liveBytes = 0;
    for (const group of this.#groups.values())
      for (const chunk of group.chunks.values()) liveBytes += allocated(chunk);
    const { capacityBytes } = this;
    const freeBytes = capacityBytes - liveBytes;
    const room = { roomBytes: freeBytes, promisedRoomBytes: freeBytes, reservedBytes: 0 };
    return { liveBytes, capacityBytes, freeBytes, ...room };
  }

  async close(): Promise<void> {}

  /** All content of a group as one comparable value. */
  dump(pg: number): object {
    const group = this.#groups.get(pg);
    return {
      chunks: this.list(pg, undefined, 1e9).map((info) => ({
        ...info,
        content: contentOf(group?.chunks.get(nameOf(info)) as MemoryChunk),
      })),
      truncateSeqs: this.listTruncateSeqs(pg, 0, 1e9),
      state: this.pgState(pg),
    };
  }
}

function reserveCells(bytes: (number | undefined)[], start: number, end: number): void {
  for (let at = start; at < end; at++) bytes[at] ??= RESERVED;
}

/** Holes are -1; those at the end are left out. */
function contentOf({ bytes }: MemoryChunk): number[] {
  const content = Array.from(bytes, (byte) => byte ?? -1);
  while (content.at(-1) === -1) content.pop();
  return content;
}

function infoOf(chunk: MemoryChunk): ChunkInfo {
  return { ino: chunk.ino, chunk: chunk.chunk, version: chunk.version, bytes: allocated(chunk) };
}

function groupOf(groups: Map<number, Group>, pg: number): Group {
  let group = groups.get(pg);
  if (!group) {
    group = {
      chunks: new Map(),
      truncateSeqs: new Map(),
      state: { last: { epoch: 0, seq: 0 }, clean: false },
    };
    groups.set(pg, group);
  }
  return group;
}
