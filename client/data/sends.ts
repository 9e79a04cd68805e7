import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import type { ChunkApi, FileLayout, Run, Written } from './api.js';
import type { DataDeps } from './data-deps.js';
import { type Extent, type Piece, piecesBefore } from './extent.js';
import {
  GATHER_EXTENT_BYTES_MAX,
  GATHERED_BYTES_MAX,
  GATHERED_EXTENTS_MAX,
  READ_BLOCK_BYTES_MAX,
  unitWithin,
} from './limits.js';
import type { UnsyncedWrites } from './unsynced.js';

/** Truncates that may overtake one write before it is given up: each was made while the write was on its way. */
const CUTS_MAX = 100;

type SendDeps = Pick<DataDeps, 'chunks' | 'blocks' | 'owns' | 'meta'>;

/** A file whose attributes grow newer while it is written. */
export interface SentFile extends FileLayout {
  readonly attr: Attr;
  applyAttr(attr: Attr, own: boolean): void;
}

/** What of one file is on its way to the chunkservers, and what has reached them since the newest commit. */
export class Sends {
  readonly #file: SentFile;
  readonly #deps: SendDeps;
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
    file: SentFile,
    deps: SendDeps,
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
      const { written, pieces } = await this.#writeUncut(chunk, extents, sync, life);
      const pg = sync ? 0 : await chunks.pgOf(file.ino, chunk);
      if (life === this.#lives && written) {
        const keeps = !sync && owns(file.ino);
        for (const { start, end, parts } of pieces) {
          if (sync) this.#unsynced.cut(start, end);
          else this.#unsynced.add(pg, written.version, start, end, keeps ? [...parts] : undefined);
        }
        this.allocatedDelta += written.allocated;
        this.ackedEnd = Math.max(this.ackedEnd, (pieces.at(-1) as Piece).end);
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

  /**
   * A write belongs to the file as it was known when it left. Bytes that a truncate has overtaken are refused: where it
   * cut, they were cut off with the rest; what lies before the end is written again, as of that truncate.
   * @param life the session that it is written in, by number
   * @returns what was written; nothing, when all of it was cut off
   */
  async #writeUncut(
    chunk: number,
    extents: readonly Piece[],
    sync: boolean,
    life: number,
  ): Promise<{ written: Written | undefined; pieces: readonly Piece[] }> {
    let layout = layoutOf(this.#file.attr);
    let pieces = extents;
    for (let cuts = 0; pieces.length > 0; cuts++) {
      try {
        return { written: await this.#write(layout, chunk, pieces, sync), pieces };
      } catch (error) {
        if (toHoldfastError(error).errorName !== 'CUT' || cuts === CUTS_MAX) throw error;
      }
      const attr = await this.#attrSince(layout.truncateSeq);
      if (life !== this.#lives) throw new HoldfastError('EIO', 'the session is over');
      layout = layoutOf(attr);
      pieces = piecesBefore(pieces, attr.size);
    }
    return { written: undefined, pieces };
  }

  /** The file behind the truncate of number `seq` and at least one more. */
  async #attrSince(seq: number): Promise<Attr> {
    const file = this.#file;
    if (file.truncateSeq > seq) return file.attr;
    const attr = await this.#deps.meta.attrNow(file.ino);
    file.applyAttr(attr, false);
    if (attr.truncateSeq > seq) return attr;
    throw new HoldfastError(
      'EIO',
      `the servers know a truncate behind ${seq} of which the metaservers do not`,
    );
  }

  #write(file: FileLayout, chunk: number, pieces: readonly Piece[], sync: boolean): Promise<Written> {
    const { chunks } = this.#deps;
    const base = chunk * file.chunkSize;
    const [first] = pieces as [Piece];
    if (pieces.length === 1) return chunks.write(file, chunk, first.start - base, first.parts, sync);
    const runs = pieces.map(
      ({ start, end, parts }): Run => ({ start: start - base, end: end - base, parts }),
    );
    return chunks.writeRuns(file, chunk, runs, sync);
  }

  get #blockBytes(): number {
    return unitWithin(this.#file.chunkSize, READ_BLOCK_BYTES_MAX);
  }
}

function layoutOf({ ino, chunkSize, truncateSeq, truncates }: Attr): FileLayout {
  return { ino, chunkSize, truncateSeq, truncates };
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
