import type { ChunkInfo, ChunkKey } from '../store/chunk-store.js';
import { type Ask, compareKeys, type Op, type PgEnv, sameVersion } from './types.js';

/** Behind every key. */
export const END_OF_KEYS: ChunkKey = { ino: Number.POSITIVE_INFINITY, chunk: 0 };
/** Before every key: inode numbers begin at 1. */
export const START_OF_KEYS: ChunkKey = { ino: 0, chunk: 0 };

/** What a page asks to be done: the difference between the source's list and the local one, up to `end`. */
export interface PageDifference {
  /** Keys up to this one are settled when the page is. */
  end: ChunkKey;
  fetch: ChunkInfo[];
  remove: ChunkKey[];
  /** Of the source's chunks in the page. */
  bytes: number;
}

/**
 * Compares a part of the source's list, behind `after`, with the local one. The page ends early when enough has to be
 * fetched: the rest is listed again, for forwarded operations behind a page are not applied.
 * @param complete the list reaches the end of the group
 * @param isSuspect chunks that are fetched although their versions are the same
 */
export function comparePage(
  env: PgEnv,
  pg: number,
  after: ChunkKey,
  source: readonly ChunkInfo[],
  complete: boolean,
  isSuspect: (key: ChunkKey) => boolean = () => false,
): PageDifference {
  const local = localChunks(env, pg, after);
  const fetch: ChunkInfo[] = [];
  const remove: ChunkKey[] = [];
  let bytes = 0;
  let fetchBytes = 0;
  let mine = local.next().value;
  for (const theirs of source) {
    while (mine && compareKeys(mine, theirs) < 0) {
      remove.push({ ino: mine.ino, chunk: mine.chunk });
      mine = local.next().value;
    }
    bytes += theirs.bytes;
    if (mine && compareKeys(mine, theirs) === 0) {
      if (!sameVersion(mine.version, theirs.version) || isSuspect(theirs)) {
        fetch.push(theirs);
        fetchBytes += theirs.bytes;
      }
      mine = local.next().value;
    } else {
      fetch.push(theirs);
      fetchBytes += theirs.bytes;
    }
    if (fetch.length >= env.limits.pageFetches || fetchBytes >= env.limits.pageBytes) {
      return { end: { ino: theirs.ino, chunk: theirs.chunk }, fetch, remove, bytes };
    }
  }
  if (!complete) {
    const last = source.at(-1) ?? after;
    return { end: { ino: last.ino, chunk: last.chunk }, fetch, remove, bytes };
  }
  for (; mine; mine = local.next().value) remove.push({ ino: mine.ino, chunk: mine.chunk });
  return { end: END_OF_KEYS, fetch, remove, bytes };
}

const LOCAL_LIST_MAX = 512;

function* localChunks(env: PgEnv, pg: number, after: ChunkKey): Generator<ChunkInfo, undefined> {
  let cursor: ChunkKey = after;
  for (;;) {
    const page = env.list(pg, cursor, LOCAL_LIST_MAX);
    yield* page;
    if (page.length < LOCAL_LIST_MAX) return undefined;
    cursor = page.at(-1) as ChunkInfo;
  }
}

/** The page that is being copied. */
export class Page {
  readonly end: ChunkKey;
  /** The source's last operation when it listed the page. */
  readonly listSeq: number;
  /** Chunks not installed yet. */
  left: number;
  readonly asks: Ask[] = [];
  /** The source's last operation when it read the chunk, for those that were fetched. */
  readonly #snapshots = new Map<string, number>();
  /** The last operation that cut off a chunk which is fetched. */
  readonly #cuts = new Map<string, number>();

  /** Bytes of its chunks that are as at the source. */
  doneBytes: number;

  constructor(end: ChunkKey, listSeq: number, left: number, doneBytes: number) {
    this.end = end;
    this.listSeq = listSeq;
    this.left = left;
    this.doneBytes = doneBytes;
  }

  /**
   * The source has read the chunk behind operation `snapshotSeq`.
   * @returns false: it was cut off since, and nothing of what was read is left
   */
  fetched({ ino, chunk }: ChunkKey, snapshotSeq: number): boolean {
    const cutSeq = this.#cuts.get(`${ino}/${chunk}`) ?? 0;
    this.#snapshots.set(`${ino}/${chunk}`, Math.max(snapshotSeq, cutSeq));
    return cutSeq <= snapshotSeq;
  }

  /** Operation `seq` has removed the inode's chunks from `from` on, here too. */
  cut(ino: number, from: number, seq: number): void {
    for (const { fields } of this.asks) {
      const { chunk = 0 } = fields;
      if (fields.ino === ino && chunk >= from) this.#cuts.set(`${ino}/${chunk}`, seq);
    }
  }

  /** Whether a forwarded write is not in what was copied. */
  lacks(op: Op): boolean {
    return op.version.seq > (this.#snapshots.get(`${op.ino}/${op.chunk}`) ?? this.listSeq);
  }
}
