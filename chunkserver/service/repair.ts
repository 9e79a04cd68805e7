import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { DataRange } from '../../proto/extents.js';
import { FrameType } from '../../proto/frame-header.js';
import type { Frame } from '../../proto/frames.js';
import { unpackContent } from '../pg/pack.js';
import { type LinkSide, sameVersion } from '../pg/types.js';
import type { ChunkContent, ChunkKey, ChunkStore, Version } from '../store/chunk-store.js';
import type { LinkTable } from './links.js';

/** A chunk that is written to while it is repaired is fetched again, so often. */
const ATTEMPTS_MAX = 8;
const FETCH_TIMEOUT_MS = 5_000;

/** Where a sound copy is. */
export interface RepairSource {
  pg: number;
  epoch: number;
  /** In-sync replicas to ask, by turns. */
  from: readonly number[];
  /** Primaries ask over the links that they dialed. */
  side: LinkSide;
}

/** What a check saw here, and what is right; undefined: no such chunk. */
export interface Correction {
  observed: Version | undefined;
  right: Version | undefined;
}

/**
 * Replaces chunks by another in-sync replica's copy. A copy is installed only while this server's chunk is still as it was
 * when the damage was found, or has the very version of the copy: an operation that came in between must not be undone.
 */
export class Repair {
  readonly #store: ChunkStore;
  readonly #links: LinkTable;
  readonly #log: Logger;
  readonly #running = new Map<string, Promise<void>>();
  /** Damaged or different copies found, and set right, since the start. */
  found = 0;
  repaired = 0;

  constructor(store: ChunkStore, links: LinkTable, log: Logger) {
    this.#store = store;
    this.#links = links;
    this.#log = log;
  }

  /** After a read that failed. @throws HoldfastError CORRUPT no replica has a good copy; UNAVAILABLE one may have, later */
  chunk(pg: number, epoch: number, key: ChunkKey, from: readonly number[]): Promise<void> {
    this.found++;
    return this.#once({ pg, epoch, from, side: 'out' }, key, (content) => {
      const own = this.#store.chunkInfo(pg, key);
      if (!own) return false;
      // Of a lost chunk that no operation has touched since, any copy has all that it had.
      return own.version.seq === 0 || (content !== undefined && sameVersion(own.version, content.version));
    });
  }

  /** After a comparison. @throws HoldfastError CORRUPT or UNAVAILABLE, as chunk() */
  correct(source: RepairSource, key: ChunkKey, { observed, right }: Correction): Promise<void> {
    return this.#once(source, key, (content) => {
      const own = this.#store.chunkInfo(source.pg, key);
      if (own && content && sameVersion(own.version, content.version)) return true;
      return same(own?.version, observed) && same(content?.version, right);
    });
  }

  /** What nobody can read any more is noted where it is copied to, as lost. */
  lacks(pg: number, { ino, chunk }: ChunkKey, lost: readonly DataRange[]): void {
    this.#log.error({ pg, ino, chunk, lost }, 'copied without bytes that no replica can read');
  }

  #once(
    source: RepairSource,
    key: ChunkKey,
    acceptable: (content: ChunkContent | undefined) => boolean,
  ): Promise<void> {
    const name = `${source.pg}/${key.ino}/${key.chunk}`;
    const running = this.#running.get(name);
    if (running) return running;
    const repair = this.#replace(source, key, acceptable).finally(() => this.#running.delete(name));
    this.#running.set(name, repair);
    return repair;
  }

  async #replace(
    source: RepairSource,
    key: ChunkKey,
    acceptable: (content: ChunkContent | undefined) => boolean,
  ): Promise<void> {
    const { pg, from } = source;
    let reason = 'no other replica';
    let mayPass = false;
    for (let attempt = 0; attempt < ATTEMPTS_MAX && from.length > 0; attempt++) {
      const server = from[attempt % from.length] as number;
      try {
        const { header, payload } = await this.#fetch(server, source, key);
        const content = header.aux === 1 ? unpackContent(payload) : undefined;
        if (!acceptable(content)) {
          reason = 'the chunk changes too fast';
          mayPass = true;
          continue;
        }
        await this.#store.install(pg, key, content);
        this.repaired++;
        this.#log.warn({ pg, ino: key.ino, chunk: key.chunk, server }, 'chunk repaired from a replica');
        return;
      } catch (error) {
        const failure = toHoldfastError(error);
        reason = failure.message;
        mayPass ||= failure.retriable && failure.errorName !== 'CORRUPT';
      }
    }
    this.#log.error({ pg, ino: key.ino, chunk: key.chunk, reason }, 'chunk could not be repaired');
    throw new HoldfastError(mayPass ? 'UNAVAILABLE' : 'CORRUPT', reason);
  }

  #fetch(server: number, { pg, epoch, side }: RepairSource, key: ChunkKey): Promise<Frame> {
    const link = this.#links.get(server, side);
    if (!link) return Promise.reject(new HoldfastError('UNAVAILABLE', `server ${server} is not connected`));
    return new Promise((resolve, reject) => {
      const fields = { type: FrameType.FETCH, pg, epoch, ino: key.ino, chunk: key.chunk };
      link.request(fields, undefined, FETCH_TIMEOUT_MS, undefined, (error, reply) => {
        if (error) reject(error);
        else resolve(reply as Frame);
      });
    });
  }
}

function same(a: Version | undefined, b: Version | undefined): boolean {
  return a && b ? sameVersion(a, b) : a === b;
}
