import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import type { Frame } from '../../proto/frames.js';
import { unpackContent } from '../pg/pack.js';
import { sameVersion } from '../pg/types.js';
import type { ChunkKey, ChunkStore } from '../store/chunk-store.js';
import type { LinkTable } from './links.js';

/** A chunk that is written to while it is repaired is fetched again, so often. */
const ATTEMPTS_MAX = 8;
const FETCH_TIMEOUT_MS = 5_000;

/**
 * Replaces chunks whose checksum failed by another in-sync replica's copy. The copy is installed only when it has the
 * version that this server has at that moment: a write that came in between must not be undone.
 */
export class Repair {
  readonly #store: ChunkStore;
  readonly #links: LinkTable;
  readonly #log: Logger;
  readonly #running = new Map<string, Promise<void>>();
  /** Chunks repaired since the start. */
  repaired = 0;

  constructor(store: ChunkStore, links: LinkTable, log: Logger) {
    this.#store = store;
    this.#links = links;
    this.#log = log;
  }

  /** @throws HoldfastError CORRUPT when no replica could give a good copy */
  chunk(pg: number, epoch: number, key: ChunkKey, from: readonly number[]): Promise<void> {
    const name = `${pg}/${key.ino}/${key.chunk}`;
    const running = this.#running.get(name);
    if (running) return running;
    const repair = this.#chunk(pg, epoch, key, from).finally(() => this.#running.delete(name));
    this.#running.set(name, repair);
    return repair;
  }

  async #chunk(pg: number, epoch: number, key: ChunkKey, from: readonly number[]): Promise<void> {
    let reason = 'no other replica';
    for (let attempt = 0; attempt < ATTEMPTS_MAX && from.length > 0; attempt++) {
      const server = from[attempt % from.length] as number;
      try {
        const { header, payload } = await this.#fetch(server, pg, epoch, key);
        const content = header.aux === 1 ? unpackContent(payload) : undefined;
        const own = this.#store.chunkInfo(pg, key);
        if (!own || !content || !sameVersion(own.version, content.version)) {
          reason = 'the chunk changes too fast';
          continue;
        }
        await this.#store.install(pg, key, content);
        this.repaired++;
        this.#log.warn({ pg, ...key, server }, 'chunk repaired from a replica');
        return;
      } catch (error) {
        reason = toHoldfastError(error).message;
      }
    }
    this.#log.error({ pg, ...key, reason }, 'chunk could not be repaired');
    throw new HoldfastError('CORRUPT', reason);
  }

  #fetch(server: number, pg: number, epoch: number, key: ChunkKey): Promise<Frame> {
    const link = this.#links.get(server, 'out');
    if (!link) return Promise.reject(new HoldfastError('UNAVAILABLE', `server ${server} is not connected`));
    return new Promise((resolve, reject) => {
      const fields = { type: FrameType.FETCH, pg, epoch, ...key };
      link.request(fields, undefined, FETCH_TIMEOUT_MS, undefined, (error, reply) => {
        if (error) reject(error);
        else resolve(reply as Frame);
      });
    });
  }
}
