import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ChunkApi, FileLayout } from './api.js';
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

type SyncedChunks = Pick<ChunkApi, 'sync' | 'pgOf'>;

/** Makes the acknowledged writes of one file durable, and finds those that the servers lost before. */
export class GroupSync {
  readonly #unsynced: UnsyncedWrites;
  readonly #chunks: SyncedChunks;
  readonly #events: GroupSyncEvents;
  /** The file as it was before it was opened here: what of it is on disk is unknown. */
  #historyEnd: number;
  /** How often something was to be written again. */
  #losses = 0;

  /** @param historyEnd size of the file when it was opened here; 0: it was made here */
  constructor(unsynced: UnsyncedWrites, chunks: SyncedChunks, historyEnd: number, events: GroupSyncEvents) {
    this.#unsynced = unsynced;
    this.#chunks = chunks;
    this.#historyEnd = historyEnd;
    this.#events = events;
    unsynced.onLost = (lost) => this.#found(lost);
  }

  /** The first fsync here of a file that was there before speaks for what others wrote into it, too. */
  async recallHistory({ ino, chunkSize }: FileLayout): Promise<void> {
    const end = this.#historyEnd;
    this.#historyEnd = 0;
    const groups = new Set<number>();
    for (let chunk = 0; chunk * chunkSize < end; chunk++) {
      const pg = await this.#chunks.pgOf(ino, chunk);
      if (groups.has(pg)) break; // neighbouring chunks lie in neighbouring groups: it went round
      groups.add(pg);
      if (!this.#unsynced.has(pg)) this.#unsynced.touch(pg);
    }
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
