import { type HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ChunkApi, FileLayout, Run, Written } from './api.js';
import type { DataDeps } from './data-deps.js';
import type { Extent } from './extent.js';
import {
  GATHER_EXTENT_BYTES_MAX,
  GATHERED_BYTES_MAX,
  GATHERED_EXTENTS_MAX,
  READ_BLOCK_BYTES_MAX,
  unitWithin,
} from './limits.js';
import type { UnsyncedWrites } from './unsynced.js';

/** What of one file is on its way to the chunkservers, and what has reached them since the newest commit. */
export class Sends {
  readonly #file: FileLayout;
  readonly #deps: Pick<DataDeps, 'chunks' | 'blocks' | 'owns'>;
  readonly #unsynced: UnsyncedWrites;
  readonly #failed: (error: HoldfastError) => void;
  readonly #underWay = new Map<{ readonly end: number }, Promise<unknown>>();
  /** Furthest end of what was sent, and of what was acknowledged, since the newest commit. */
  sentEnd = 0;
  ackedEnd = 0;
  /** A write has failed since then. */
  dataLost = false;
  /** Bytes newly allocated that no commit has told yet. */
  allocatedDelta = 0;
  /** Sessions that ended so far. */
  #lives = 0;

  /** @param failed told of each failure: the bytes are given up */
  constructor(
    file: FileLayout,
    deps: Pick<DataDeps, 'chunks' | 'blocks' | 'owns'>,
    unsynced: UnsyncedWrites,
    failed: (error: HoldfastError) => void,
  ) {
    this.#file = file;
    this.#deps = deps;
    this.#unsynced = unsynced;
    this.#failed = failed;
  }

  /** Counts `work` on bytes before `end` as being sent. */
  during<T>(end: number, work: Promise<T>): Promise<T> {
    const place = { end };
    const done = work.finally(() => this.#underWay.delete(place));
    this.#underWay.set(place, Promise.allSettled([done]));
    return done;
  }

  /** Resolves when nothing that reaches beyond `size` now is on its way any more. */
  async beyond(size: number): Promise<void> {
    const beyond = [...this.#underWay].filter(([place]) => place.end > size);
    await Promise.all(beyond.map(([, sent]) => sent));
  }

  /** Sends extents of one chunk, ascending, in one message. Never rejects. */
  send(extents: readonly Extent[]): Promise<void> {
    return this.during((extents.at(-1) as Extent).end, this.#send(extents));
  }

  /** [start, end) changed on the servers. */
  landed({ allocated }: Written, start: number, end: number): void {
    this.allocatedDelta += allocated;
    this.sentEnd = Math.max(this.sentEnd, end);
    this.ackedEnd = Math.max(this.ackedEnd, end);
    this.#deps.blocks.dropRange(this.#file.ino, start, end, this.#blockBytes);
  }

  /** A commit or a truncate speaks for all that was sent. */
  settle(): void {
    this.sentEnd = this.ackedEnd = 0;
  }

  /** The session is over: what becomes of what is on its way is nothing that is known here, or kept. */
  abandon(): void {
    this.#lives++;
    this.allocatedDelta = 0;
    this.settle();
  }

  async #send(extents: readonly Extent[]): Promise<void> {
    const { chunks, blocks, owns } = this.#deps;
    const file = this.#file;
    const chunk = Math.floor((extents[0] as Extent).start / file.chunkSize);
    const sync = extents.some((extent) => extent.sync);
    const { end } = extents.at(-1) as Extent;
    this.sentEnd = Math.max(this.sentEnd, end);
    const life = this.#lives;
    try {
      const { allocated, version } = await this.#write(chunk, extents, sync);
      const pg = sync ? 0 : await chunks.pgOf(file.ino, chunk);
      if (life === this.#lives) {
        const keeps = !sync && owns(file.ino);
        for (const { start, end, parts } of extents) {
          if (sync) this.#unsynced.cut(start, end);
          else this.#unsynced.add(pg, version, start, end, keeps ? [...parts] : undefined);
        }
        this.allocatedDelta += allocated;
        this.ackedEnd = Math.max(this.ackedEnd, end);
      }
    } catch (error) {
      if (life === this.#lives) {
        this.dataLost = true;
        this.#failed(toHoldfastError(error));
      }
    }
    // What a reader fetched before this moment may be older than what has landed now.
    for (const { start, end } of extents) blocks.dropRange(file.ino, start, end, this.#blockBytes);
  }

  #write(chunk: number, extents: readonly Extent[], sync: boolean): Promise<Written> {
    const { chunks } = this.#deps;
    const base = chunk * this.#file.chunkSize;
    const [first] = extents as [Extent];
    if (extents.length === 1) return chunks.write(this.#file, chunk, first.start - base, first.parts, sync);
    const runs = extents.map(
      ({ start, end, parts }): Run => ({ start: start - base, end: end - base, parts }),
    );
    return chunks.writeRuns(this.#file, chunk, runs, sync);
  }

  get #blockBytes(): number {
    return unitWithin(this.#file.chunkSize, READ_BLOCK_BYTES_MAX);
  }
}

/** Extents of one group, as far as one message can take them all. */
interface Message {
  chunk: number;
  bytes: number;
  extents: Extent[];
}

/** A group whose dirty extents leave in one message has them carry the SYNC; the others get one SYNC behind them. */
export async function flagLoneMessages(
  file: FileLayout,
  dirty: Iterable<Extent>,
  chunks: Pick<ChunkApi, 'pgOf'>,
): Promise<void> {
  await chunks.pgOf(file.ino, 0); // from now on the groups are known
  const messages = new Map<number, Message | undefined>();
  for (const extent of dirty) {
    const chunk = Math.floor(extent.start / file.chunkSize);
    const pg = chunks.pgOf(file.ino, chunk) as number;
    const message = messages.has(pg) ? messages.get(pg) : { chunk, bytes: 0, extents: [] };
    messages.set(pg, message && joined(message, extent, chunk));
  }
  for (const message of messages.values()) for (const extent of message?.extents ?? []) extent.sync = true;
}

/** @returns undefined: it takes another message */
function joined(message: Message, extent: Extent, chunk: number): Message | undefined {
  const { extents } = message;
  extents.push(extent);
  message.bytes += extent.length;
  if (extents.length === 1) return message;
  const small = extents.length === 2 ? (extents[0] as Extent).length <= GATHER_EXTENT_BYTES_MAX : true;
  const fits =
    small &&
    chunk === message.chunk &&
    extent.length <= GATHER_EXTENT_BYTES_MAX &&
    extents.length <= GATHERED_EXTENTS_MAX &&
    message.bytes <= GATHERED_BYTES_MAX;
  return fits ? message : undefined;
}
