import { backOffMs } from '../../common/backoff.js';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import { packCopySource } from '../../proto/copy-source.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { packTable } from '../../proto/extent-table.js';
import { type ChunkRanges, type DataRange, unpackRanges } from '../../proto/extents.js';
import {
  EXTENTS_RESERVED,
  FRAME_FLAG_SYNC,
  type FrameFields,
  FrameType,
  joinFields,
} from '../../proto/frame-header.js';
import { type Frame, FrameError } from '../../proto/frames.js';
import { type Lineage, lineageOf } from '../../proto/lineage.js';
import { FILE_SIZE_MAX_BYTES } from '../../proto/types.js';
import { type Interrupt, interruptible, throwIfInterrupted } from '../wait.js';
import type { ChunkApi, FileLayout, Run, Stored, Written } from './api.js';
import type { ChunkConnections, FrameLink } from './chunk-connections.js';
import type { ClusterView } from './cluster-view.js';

/** The first repetition comes this soon unless a newer map comes earlier; it doubles from there. */
export const DATA_RETRY_MIN_MS = 10;
export const DATA_RETRY_MAX_MS = 250;
/** One attempt; a dead server is found earlier by its closed connection or by the map. */
const ATTEMPT_DEADLINE_MS = 10_000;
/** A primary that asks for truncates again and again has a fault: then the ordinary back-off applies. */
const PROMPT_TRUNCATES_MAX = 3;
/** A block that no replica can give back intact. */
const CORRUPT_ATTEMPTS_MAX = 10;
/** A blocked request is logged first after this time, then at each doubling. */
const SLOW_LOG_MS = 5_000;

/**
 * Final refusals that pass: of a stranger at a chunkserver's address, the map will name another one; of a session that
 * has expired, there will be another one.
 */
const REPEATED: ReadonlySet<string> = new Set(['WRONG_CLUSTER', 'VERSION', 'SESSION_EXPIRED']);

const WRITES: ReadonlySet<number> = new Set([
  FrameType.WRITE,
  FrameType.WRITE_EXTENTS,
  FrameType.COPY,
  FrameType.RESERVE,
]);

function writtenOf({ header }: Frame): Written {
  const { aux, versionEpoch, versionSeq } = header;
  return { allocated: aux, version: { epoch: versionEpoch, seq: versionSeq } };
}

interface Target {
  /** Of a file's chunk, or of a group directly. */
  pg(): number;
  file: FileLayout | undefined;
}

export interface ChunkIoDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
  view: ClusterView;
  connections: ChunkConnections;
  /** The session in whose name requests are made, as the connections' HELLO says; 0: there is none now. Default: 1, always. */
  session?(): number;
  /** Callers get ETIMEDOUT after so long; absent: they wait until the data is there. */
  softTimeoutMs?: number;
}

/** Requests to the primaries of placement groups, repeated over any fail-over. */
export class ChunkIo implements ChunkApi {
  readonly #deps: ChunkIoDeps;
  readonly #softTimeoutMs: number;
  readonly #session: () => number;
  /** Frames sent so far, repetitions included. */
  requests = 0;

  constructor(deps: ChunkIoDeps) {
    this.#deps = deps;
    this.#softTimeoutMs = deps.softTimeoutMs ?? Infinity;
    this.#session = deps.session ?? (() => 1);
    deps.view.onChange((servers) => deps.connections.mapChanged(servers));
  }

  onNewLineage(listener: (pgs: readonly number[]) => void): void {
    this.#deps.view.onNewLineage(listener);
  }

  pgOf(ino: number, chunk: number, signal?: Interrupt): number | Promise<number> {
    const pg = this.#deps.view.pgOf(ino, chunk);
    return pg >= 0 ? pg : this.#awaitPg(ino, chunk, signal);
  }

  async read(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    signal?: Interrupt,
  ): Promise<Buffer> {
    const fields = { type: FrameType.READ, ino: file.ino, chunk, offset, length };
    const reply = await this.#run(this.#chunkTarget(file, chunk), fields, undefined, signal);
    file.sawTruncate?.(reply.header.truncateSeq);
    return reply.payload.length > length ? reply.payload.subarray(0, length) : reply.payload;
  }

  async write(
    file: FileLayout,
    chunk: number,
    offset: number,
    data: readonly Buffer[],
    sync: boolean,
  ): Promise<Written> {
    const flags = sync ? FRAME_FLAG_SYNC : 0;
    const fields = { type: FrameType.WRITE, flags, ino: file.ino, chunk, offset };
    return writtenOf(await this.#run(this.#chunkTarget(file, chunk), fields, data as Buffer[], undefined));
  }

  async writeRuns(file: FileLayout, chunk: number, runs: readonly Run[], sync: boolean): Promise<Written> {
    const flags = sync ? FRAME_FLAG_SYNC : 0;
    const fields = { type: FrameType.WRITE_EXTENTS, flags, ino: file.ino, chunk };
    const payload = [packTable(runs)];
    for (const { parts } of runs) for (const part of parts) payload.push(part);
    return writtenOf(await this.#run(this.#chunkTarget(file, chunk), fields, payload, undefined));
  }

  async copy(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    from: { file: FileLayout; chunk: number; offset: number },
  ): Promise<Written> {
    const fields = { type: FrameType.COPY, ino: file.ino, chunk, offset, length };
    const { ino, truncateSeq } = from.file;
    const source = packCopySource({ ino, chunk: from.chunk, offset: from.offset, truncateSeq });
    return writtenOf(await this.#run(this.#chunkTarget(file, chunk), fields, [source], undefined));
  }

  async punch(
    file: FileLayout,
    chunk: number,
    offset: number,
    length: number,
    sync = false,
  ): Promise<Written> {
    const flags = sync ? FRAME_FLAG_SYNC : 0;
    const fields = { type: FrameType.WRITE, flags, ino: file.ino, chunk, offset, length };
    return writtenOf(await this.#run(this.#chunkTarget(file, chunk), fields, undefined, undefined));
  }

  async reserve(file: FileLayout, chunk: number, offset: number, length: number): Promise<Written> {
    const fields = { type: FrameType.RESERVE, ino: file.ino, chunk, offset, length };
    return writtenOf(await this.#run(this.#chunkTarget(file, chunk), fields, undefined, undefined));
  }

  async ranges(file: FileLayout, chunk: number, signal?: Interrupt, of?: Stored): Promise<DataRange[]> {
    const found = await this.#extents(file, chunk, signal, of);
    return found?.chunk === chunk ? found.ranges : [];
  }

  /** Each group knows its own chunks: all are asked at once. */
  async nextChunk(
    file: FileLayout,
    first: number,
    last: number,
    signal?: Interrupt,
    of?: Stored,
  ): Promise<number | undefined> {
    const groups = new Set<number>();
    const asked: Promise<ChunkRanges | undefined>[] = [];
    for (let chunk = first; chunk <= last; chunk++) {
      const pg = await this.pgOf(file.ino, chunk, signal);
      if (groups.has(pg)) break; // neighbouring chunks lie in neighbouring groups: it went round
      groups.add(pg);
      asked.push(this.#extents(file, chunk, signal, of));
    }
    const found = (await Promise.all(asked)).map((one) => one?.chunk ?? Number.POSITIVE_INFINITY);
    const next = Math.min(...found);
    return next <= last ? next : undefined;
  }

  async #extents(
    file: FileLayout,
    chunk: number,
    signal?: Interrupt,
    of: Stored = 'data',
  ): Promise<ChunkRanges | undefined> {
    const offset = of === 'space' ? EXTENTS_RESERVED : 0;
    const fields = { type: FrameType.EXTENTS, ino: file.ino, chunk, offset };
    const reply = await this.#run(this.#chunkTarget(file, chunk), fields, undefined, signal);
    return unpackRanges(reply.payload);
  }

  async sync(pg: number): Promise<Lineage> {
    const target = { pg: () => pg, file: undefined };
    return lineageOf((await this.#run(target, { type: FrameType.SYNC }, undefined, undefined)).header);
  }

  truncateAhead(file: FileLayout, firstChunk: number, lastChunk: number): void {
    const groups = new Set<number>();
    for (let chunk = firstChunk; chunk <= lastChunk; chunk++) {
      const pg = this.#deps.view.pgOf(file.ino, chunk);
      if (pg < 0 || groups.has(pg)) break; // neighbouring chunks lie in neighbouring groups: it went round
      groups.add(pg);
      void this.#truncateOnce(file, pg);
    }
  }

  async #truncateOnce(file: FileLayout, pg: number): Promise<void> {
    const primary = this.#deps.view.primary(pg);
    const link = primary && this.#deps.connections.peek(primary.server);
    if (!link) return;
    try {
      await this.#truncate(link, file, pg, primary.epoch, 0);
    } catch (error) {
      this.#deps.log.debug(
        { pg, ino: file.ino, error: toHoldfastError(error).message },
        'truncate left to servers',
      );
    }
  }

  #chunkTarget(file: FileLayout, chunk: number): Target {
    return { pg: () => this.#deps.view.pgOf(file.ino, chunk), file };
  }

  async #awaitPg(ino: number, chunk: number, signal?: Interrupt): Promise<number> {
    const { view, clock } = this.#deps;
    const started = clock.now();
    for (;;) {
      const pg = view.pgOf(ino, chunk);
      if (pg >= 0) return pg;
      if (clock.now() - started >= this.#softTimeoutMs) throw new HoldfastError('ETIMEDOUT');
      await view.newerThan(view.version, DATA_RETRY_MAX_MS, signal);
    }
  }

  /** Repeats until there is an answer or a final error. */
  async #run(
    target: Target,
    fields: FrameFields & { type: FrameType },
    payload: Buffer[] | undefined,
    signal: Interrupt | undefined,
  ): Promise<Frame> {
    const { view, clock, prng } = this.#deps;
    const started = clock.now();
    let waits = 0;
    let truncates = 0;
    let corrupt = 0;
    let logAt = SLOW_LOG_MS;
    // What was written under a session ends with it: others may have changed the file since.
    const owner = WRITES.has(fields.type) ? this.#session() : undefined;
    for (;;) {
      throwIfInterrupted(signal);
      const version = view.version;
      const pg = target.pg();
      const failure = await this.#attempt(target, pg, fields, payload, signal, owner);
      if (!(failure instanceof HoldfastError)) return failure;
      const error = failure.errorName;
      if (error === 'SESSION_EXPIRED' && owner !== undefined) throw new HoldfastError('EIO', failure.message);
      if (!failure.retriable && !REPEATED.has(error)) throw failure;
      if (error === 'NEED_TRUNCATE' && ++truncates <= PROMPT_TRUNCATES_MAX) continue;
      if (error === 'CORRUPT' && ++corrupt >= CORRUPT_ATTEMPTS_MAX)
        throw new HoldfastError('EIO', failure.message);
      const waited = clock.now() - started;
      if (waited >= this.#softTimeoutMs) throw new HoldfastError('ETIMEDOUT', failure.message);
      if (waited >= logAt) {
        this.#deps.log.warn(
          { pg, type: fields.type, waitedMs: Math.round(waited), error: failure.message },
          'blocked',
        );
        logAt *= 2;
      }
      const wait = backOffMs(++waits, DATA_RETRY_MIN_MS, DATA_RETRY_MAX_MS);
      await view.newerThan(version, wait * (0.75 + 0.5 * prng.float()), signal);
    }
  }

  /** One attempt: the reply, or why there is none. Pending truncates that the primary lacks are sent on the way. */
  async #attempt(
    target: Target,
    pg: number,
    fields: FrameFields & { type: FrameType },
    payload: Buffer[] | undefined,
    signal: Interrupt | undefined,
    owner: number | undefined,
  ): Promise<Frame | HoldfastError> {
    const { view, connections } = this.#deps;
    const primary = pg >= 0 ? view.primary(pg) : undefined;
    if (!primary) return new HoldfastError('UNAVAILABLE', `placement group ${pg} has no primary`);
    if (this.#session() === 0)
      return new HoldfastError(owner === undefined ? 'UNAVAILABLE' : 'SESSION_EXPIRED');
    try {
      const { server, epoch } = primary;
      const link = connections.peek(server) ?? (await interruptible(connections.get(server), signal));
      if (owner !== undefined && owner !== this.#session()) return new HoldfastError('SESSION_EXPIRED');
      const truncateSeq = target.file?.truncateSeq ?? 0;
      this.requests++;
      const reply = link.call(joinFields(fields, { pg, epoch, truncateSeq }), payload, ATTEMPT_DEADLINE_MS);
      try {
        return await interruptible(reply, signal);
      } catch (error) {
        if (error instanceof FrameError && error.errorName === 'NEED_TRUNCATE' && target.file) {
          await this.#truncate(link, target.file, pg, epoch, error.fields.truncateSeq ?? 0);
        }
        throw error;
      }
    } catch (error) {
      return toHoldfastError(error);
    }
  }

  /** Sends the truncates with numbers above `known`, in order; the last one brings the group to the file's number. */
  async #truncate(
    link: FrameLink,
    file: FileLayout,
    pg: number,
    epoch: number,
    known: number,
  ): Promise<void> {
    const { ino, chunkSize: length, truncateSeq } = file;
    const due = file.truncates.filter(({ seq }) => seq > known);
    // Those not listed any more are applied wherever they matter: a cut at the very end only raises the number.
    if (truncateSeq > (due.at(-1)?.seq ?? known)) due.push({ seq: truncateSeq, from: FILE_SIZE_MAX_BYTES });
    for (const { seq, from } of due) {
      const fields = { type: FrameType.TRUNCATE, pg, epoch, ino, length, truncateSeq: seq, aux: from };
      await link.call(fields, undefined, ATTEMPT_DEADLINE_MS);
    }
  }
}
