import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ChunkApi } from './api.js';
import type { Piece } from './extent.js';
import type { LostWrites, UnsyncedWrites } from './unsynced.js';

/** What all replicas lost before it was synced is written again; so often, should they lose it again. */
export const REWRITES_MAX = 3;
const LOST = 'all replicas lost it before it was synced';

export interface GroupSyncEvents {
  /** What the servers do not have any more is to be written again. */
  writeAgain(pieces: readonly Piece[]): void;
  failed(error: HoldfastError): void;
}

/** Makes the acknowledged writes of one file durable, and finds those that the servers lost before. */
export class GroupSync {
  readonly #unsynced: UnsyncedWrites;
  readonly #chunks: Pick<ChunkApi, 'sync'>;
  readonly #events: GroupSyncEvents;
  /** How often something was to be written again. */
  #losses = 0;

  constructor(unsynced: UnsyncedWrites, chunks: Pick<ChunkApi, 'sync'>, events: GroupSyncEvents) {
    this.#unsynced = unsynced;
    this.#chunks = chunks;
    this.#events = events;
    unsynced.onLost = (lost) => this.#found(lost);
  }

  /** Syncs every group that has something unsynced now. Never rejects. */
  async all(): Promise<void> {
    await Promise.all(this.#unsynced.groups.map((pg) => this.#sync(pg)));
  }

  /**
   * Syncs until nothing is found lost. Never rejects.
   * @param drain writes what was put back, by this call or another one
   */
  async settle(seen: number, drain: () => Promise<void>): Promise<void> {
    let losses = seen;
    for (let rewrites = 0; ; rewrites++) {
      await this.all();
      if (losses === this.#losses) return;
      if (rewrites === REWRITES_MAX) {
        this.#events.failed(new HoldfastError('EIO', LOST));
        return;
      }
      losses = this.#losses;
      await drain();
    }
  }

  /** To be handed to settle(). */
  get losses(): number {
    return this.#losses;
  }

  async #sync(pg: number): Promise<void> {
    const mark = this.#unsynced.mark(pg);
    try {
      const lineage = await this.#chunks.sync(pg);
      this.#found(this.#unsynced.synced(pg, mark, lineage));
    } catch (error) {
      this.#unsynced.forget(pg);
      this.#events.failed(toHoldfastError(error));
    }
  }

  #found({ pieces, gone }: LostWrites): void {
    if (gone) this.#events.failed(new HoldfastError('EIO', LOST));
    if (pieces.length === 0) return;
    this.#losses++;
    this.#events.writeAgain(pieces);
  }
}
