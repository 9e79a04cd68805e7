import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { SegmentLog } from '../../common/segment-log.js';
import { HoldfastError } from '../../proto/errors.js';
import type { ChunkIndex } from './chunk-index.js';
import type { ChunkKey } from './chunk-store.js';
import { type Compactor, DEFRAGMENT_EXTENTS } from './compactor.js';
import type { ExtentReader } from './extent-reader.js';
import type { SpaceMeter } from './space.js';

/** Changes are checkpointed, and with them all data made durable, at the latest after this time. */
const CHECKPOINT_INTERVAL_MS = 3000;
/** ... or when so much would have to be replayed or kept in memory. */
const CHECKPOINT_LOG_BYTES = 256 * 1024 * 1024;
const CHECKPOINT_ENTRIES = 8192;
const CHECKPOINT_EXTENTS = 200_000;
/** Beyond this multiple of the above, acknowledgements wait for the checkpoint. */
const HOLD_FACTOR = 3;
/** ... and at so many pieces of one chunk its writes wait until it is put together. */
export const HOLD_CHUNK_EXTENTS = 8 * DEFRAGMENT_EXTENTS;

/** Segments are rewritten when the store has not been used for so long, unless dead bytes take too much. */
export const COMPACTION_QUIET_MS = 10_000;

/** A growing chunk is noted again after so many pieces more. */
const DEFRAGMENT_STEP = 256;

export interface MaintenanceEnv {
  log: SegmentLog;
  index: ChunkIndex;
  reader: ExtentReader;
  space: SpaceMeter;
  compactor: Compactor;
  /** COMPACTION_QUIET_MS, or 0: segments are rewritten beside operations. */
  quietMs: number;
  clock: Clock;
  logger: Logger;
  /** Told once when the index or the log can no longer be written: the store is read-only from then on. */
  onFailure: (error: unknown) => void;
}

/**
 * Works behind the operations: checkpoints the index, unlinks dead segments, compacts.
 *
 * Order of durability: log, then index, then unlink. Only what had no live byte when a checkpoint was taken is unlinked
 * after it. Checkpoints and compaction each run one at a time, beside each other.
 *
 * Segments are rewritten while nobody uses the store: it costs every operation beside it processor time and disk, and what
 * waits has fewer live bytes to move. It does not wait while dead bytes take much of the space.
 */
export class Maintenance {
  private timer?: Timer;
  private checkpointing?: Promise<void>;
  private again = false;
  private compacting?: Promise<void>;
  private quietTimer?: Timer;
  /** Operations so far, and how many they were when the store was last found quiet. */
  private uses = 0;
  private quietAt?: number;
  private checkpointedBytes = 0;
  private checkpointedSegment: number;
  /** The chunk of the last operation, when it has grown too many pieces. */
  private overgrown?: { pg: number; key: ChunkKey };
  private stopped = false;
  private failure?: HoldfastError;

  constructor(private readonly env: MaintenanceEnv) {
    this.checkpointedSegment = env.index.replayFrom?.segment ?? 1;
  }

  /** @throws HoldfastError EIO once a checkpoint has failed: what is appended from then on could never be indexed */
  check(): void {
    if (this.failure) throw this.failure;
  }

  /** To be called with every operation that somebody waits for. */
  used(): void {
    this.uses++;
  }

  /** Notes a chunk that lies in too many pieces. @param added pieces that the last operation wrote */
  noteExtents(pg: number, key: ChunkKey, added = 1): void {
    const extents = this.env.index.get(pg, key.ino, key.chunk)?.extents.length ?? 0;
    if (extents < DEFRAGMENT_EXTENTS) return;
    if (extents % DEFRAGMENT_STEP < added) {
      this.env.compactor.noteFragmented(pg, key);
      this.compact();
    }
    if (extents >= HOLD_CHUNK_EXTENTS) this.overgrown = { pg, key };
  }

  /**
   * To be called after every append. Returns what the caller should wait for before it acknowledges, if anything.
   * @param tight the append was admitted on the condition that space is reclaimed
   * @param freed the append left dead bytes behind, which are wanted at once when space is short
   */
  afterAppend(tight: boolean, freed = false): Promise<void> | undefined {
    if (this.stopped || this.failure) return undefined;
    const fill = this.fill();
    const { overgrown } = this;
    this.overgrown = undefined;
    const full = fill >= HOLD_FACTOR;
    if (fill >= 1 || tight || (freed && this.env.space.pressed)) this.checkpoint();
    else this.armTimer();
    return tight || full || overgrown ? this.held(tight, full, overgrown) : undefined;
  }

  /**
   * Waits for what an operation is held up for, and for nothing else that runs behind the operations: a pass of the compactor
   * at its rate takes as long as there is much to move.
   */
  private async held(tight: boolean, full: boolean, overgrown: Maintenance['overgrown']): Promise<void> {
    if (tight || full) await this.checkpointing;
    if (tight) await this.compacting;
    if (overgrown) await this.putTogether(overgrown.pg, overgrown.key);
  }

  private async putTogether(pg: number, key: ChunkKey): Promise<void> {
    try {
      await this.env.compactor.putTogether(pg, key);
    } catch (error) {
      this.fail(error);
    }
  }

  /** How full the changes since the last checkpoint are; from 1 on another one is due. */
  private fill(): number {
    const { entries, extents } = this.env.index.dirty;
    const bytes = this.env.space.appendedBytes - this.checkpointedBytes;
    return Math.max(bytes / CHECKPOINT_LOG_BYTES, entries / CHECKPOINT_ENTRIES, extents / CHECKPOINT_EXTENTS);
  }

  private armTimer(): void {
    if (this.timer || this.checkpointing || this.stopped) return;
    this.timer = this.env.clock.after(CHECKPOINT_INTERVAL_MS, () => this.checkpoint(), { weak: true });
  }

  /** Space is short: takes a checkpoint and compacts now. */
  reclaim(): void {
    if (!this.checkpointing && !this.stopped) this.checkpoint();
  }

  /** Starts a checkpoint, or another one behind that which runs. */
  private checkpoint(): void {
    this.timer?.cancel();
    this.timer = undefined;
    if (this.failure) return;
    this.again = this.checkpointing !== undefined;
    this.checkpointing ??= this.checkpoints();
  }

  private async checkpoints(): Promise<void> {
    try {
      do {
        this.again = false;
        await this.checkpointOnce();
      } while (this.again && this.fill() >= 1);
    } catch (error) {
      this.fail(error);
    } finally {
      this.checkpointing = undefined;
    }
    if (this.failure || this.stopped) return;
    this.compact();
    if (this.env.index.dirty.entries > 0) this.armTimer();
  }

  private async checkpointOnce(): Promise<void> {
    const { log, index, reader, space } = this.env;
    const position = log.end;
    const bytes = space.appendedBytes;
    const dead = await index.checkpoint(position, () => log.sync(), log.segments);
    this.checkpointedBytes = bytes;
    this.checkpointedSegment = position.segment;
    for (const segment of dead.filter((each) => !reader.isPinned(each))) {
      const size = log.sizeOf(segment);
      await log.unlinkSegment(segment);
      index.forgetSegment(segment);
      await space.reclaimed(size);
    }
  }

  private compact(): void {
    if (this.compacting || this.stopped || this.failure) return;
    this.compacting = this.env.compactor
      .pass(this.checkpointedSegment, () => this.mayRewrite)
      .catch((error: unknown) => {
        this.fail(error);
        return 0;
      })
      .then((moved) => {
        this.compacting = undefined;
        // What was moved frees its segment only with the next checkpoint.
        if (moved > 0 && !this.stopped) this.checkpoint();
        if (!this.mayRewrite) this.awaitQuiet();
      });
  }

  private get mayRewrite(): boolean {
    const { quietMs, space, index } = this.env;
    return (
      quietMs === 0 || this.uses === this.quietAt || space.pressed || space.wasteful(index.compactedBytes)
    );
  }

  /** Compacts when nobody has used the store for a while, if there is something to compact. */
  private awaitQuiet(): void {
    if (this.quietTimer || this.stopped || this.failure) return;
    if (!this.env.compactor.hasCandidate(this.checkpointedSegment)) return;
    const { uses } = this;
    const check = (): void => {
      this.quietTimer = undefined;
      if (this.uses === uses) {
        this.quietAt = uses;
        this.compact();
      } else this.awaitQuiet();
    };
    this.quietTimer = this.env.clock.after(this.env.quietMs, check, { weak: true });
  }

  private fail(error: unknown): void {
    if (this.failure) return;
    const text = error instanceof Error ? error.message : String(error);
    this.failure = new HoldfastError('EIO', `the chunk store has failed: ${text}`);
    this.env.logger.error({ err: text }, 'chunk store failed');
    this.env.onFailure(this.failure);
  }

  /** Ends all work with a last checkpoint, so that the next start has nothing to replay. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.timer?.cancel();
    this.quietTimer?.cancel();
    this.env.compactor.stop();
    await this.env.compactor.idle();
    await this.compacting;
    await this.checkpointing;
    if (this.failure) return;
    try {
      await this.checkpointOnce();
    } catch (error) {
      this.fail(error);
    }
  }
}
