import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { toHoldfastError } from '../../proto/errors.js';
import type { Purge, PurgeDone } from '../../proto/gen/cluster.js';
import type { ReclaimDone } from '../../proto/gen/meta.js';
import type { LeaderDuty } from './leadership.js';
import type { MetaState, ReclaimItem, ReclaimKey } from './ports.js';
import type { Proposer } from './proposer.js';
import { PurgeLane } from './purge-lane.js';
import { pgsToPurge } from './purge-plan.js';

/** Reclaims worked on at one time. */
export const RECLAIMS_ACTIVE_MAX = 1024;
/** Rows of the reclaim table read at once, and how often in one turn of the event loop. */
const SCAN_ROWS = 256;
const SCAN_ROUNDS_MAX = 8;
/** From a reason to look into the table until it is looked into: collects what comes together. */
export const SCAN_DELAY_MS = 10;
/** The same, when nothing could be done the last time (all orphans are held open). */
export const SCAN_IDLE_DELAY_MS = 200;
/**
 * A look reads what is being worked on too: so many rows of the last one may be read again in a millisecond. With a thousand
 * deletes under way it is looked every `SCAN_IDLE_DELAY_MS`.
 */
const SCAN_ROWS_PER_MS = 4;
/**
 * While disks have room, data goes when changes have paused for so long, for whoever deletes shares the processors with what
 * takes it away ..
 */
export const RECLAIM_PAUSE_MS = 400;
/** .. but no later than so long after the first of them. */
export const RECLAIM_WAIT_MAX_MS = 4_000;
/** How often purges without an answer are looked for. */
export const RECLAIM_TICK_MS = 500;

export interface ReclaimerOptions {
  state: MetaState;
  proposer: Proposer;
  /** Who holds what open; deletes wait until every session has said so. */
  sessions: { readonly allAnnounced: boolean; isOpen(ino: number): boolean };
  /** The primary of a PG, if it is connected to this leader. */
  primary(pg: number): number | undefined;
  pgCount(): number;
  /** Nobody waits for the space. */
  hasRoom(): boolean;
  /** @returns false when the server is not connected */
  pushPurge(server: number, purge: Purge): boolean;
  clock: Clock;
  log: Logger;
}

interface Reclaim {
  item: ReclaimItem;
  /** PGs that have not said that it is done. */
  left: Set<number>;
}

/**
 * Removes the data of deleted and truncated files: each row of the reclaim table becomes a Purge to the primary of each
 * PG it touches, repeated until all have answered; then the row is taken out by ReclaimDone. Everything here is
 * volatile and idempotent: a new leader begins with the table again.
 */
export class Reclaimer implements LeaderDuty {
  readonly #options: ReclaimerOptions;
  readonly #active = new Map<string, Reclaim>();
  readonly #lanes = new Map<number, PurgeLane>();
  /** Purged everywhere, not recorded yet. */
  #finished: ReclaimItem[] = [];
  #recording = false;
  #leads = false;
  #cursor: ReclaimKey | undefined;
  #scan: Timer | undefined;
  #scanAt = Number.POSITIVE_INFINITY;
  /** The last pass over the table found nothing to begin with. */
  #idle = false;
  /** Rows that the last pass read. */
  #scanned = 0;
  #tick: Timer | undefined;
  /** The last change, and the first one that no pass has looked for; undefined: what there is has no reason to wait. */
  #waits: { since: number; changedAt: number } | undefined;

  constructor(options: ReclaimerOptions) {
    this.#options = options;
  }

  begin(): void {
    this.#leads = true;
    this.#idle = false;
    this.#scanned = 0;
    this.#tick = this.#options.clock.every(RECLAIM_TICK_MS, () => this.#checkLanes(), { weak: true });
    this.#schedule(SCAN_DELAY_MS);
  }

  end(): void {
    this.#leads = false;
    this.#tick?.cancel();
    this.#scan?.cancel();
    this.#scan = undefined;
    this.#scanAt = Number.POSITIVE_INFINITY;
    this.#waits = undefined;
    this.#cursor = undefined;
    this.#active.clear();
    this.#finished = [];
    this.#lanes.clear();
  }

  /** Whether the inode's data is being deleted. */
  isReclaiming(ino: number): boolean {
    return this.#active.has(keyOf({ ino, truncateSeq: 0 }));
  }

  /** Commands were applied: there may be rows. */
  applied(): void {
    this.#changed();
    const paced = Math.max(SCAN_DELAY_MS, this.#scanned / SCAN_ROWS_PER_MS);
    this.#schedule(this.#idle ? SCAN_IDLE_DELAY_MS : Math.min(paced, SCAN_IDLE_DELAY_MS));
  }

  /** Inodes were released by their last opener, or the last session has announced itself. */
  released(): void {
    this.#changed();
    this.#schedule(SCAN_DELAY_MS);
  }

  /** Primaries changed, or chunkservers connected. */
  mapChanged(): void {
    this.#checkLanes();
    this.#schedule(SCAN_DELAY_MS);
  }

  purgeDone(server: number, done: PurgeDone): void {
    const key = keyOf(done);
    const lane = this.#lanes.get(done.pg);
    if (!lane?.done(server, key)) return;
    this.#pump(lane);
    const reclaim = this.#active.get(key);
    if (!reclaim?.left.delete(done.pg)) return;
    if (reclaim.left.size > 0) return;
    this.#finished.push(reclaim.item);
    void this.#record();
  }

  #changed(): void {
    if (!this.#leads) return;
    const now = this.#options.clock.now();
    this.#waits = { since: this.#waits?.since ?? now, changedAt: now };
  }

  /** How long a pass still waits for changes to pause. What has begun goes on: a mass of deletions outlasts any pause. */
  #pauseLeft(): number {
    const { clock, hasRoom } = this.#options;
    if (!this.#waits || this.#active.size > 0 || !hasRoom()) return 0;
    const { since, changedAt } = this.#waits;
    return Math.min(changedAt + RECLAIM_PAUSE_MS, since + RECLAIM_WAIT_MAX_MS) - clock.now();
  }

  #schedule(delayMs: number): void {
    const { clock } = this.#options;
    if (!this.#leads || clock.now() + delayMs >= this.#scanAt) return;
    this.#scan?.cancel();
    this.#scanAt = clock.now() + delayMs;
    this.#scan = clock.after(
      delayMs,
      () => {
        this.#scan = undefined;
        this.#scanAt = Number.POSITIVE_INFINITY;
        const left = this.#pauseLeft();
        if (left > 0) {
          this.#schedule(left);
          return;
        }
        this.#waits = undefined;
        try {
          this.#scanTable();
        } catch (error) {
          // The store has told of its damage, and the server goes down for it in order.
          if (toHoldfastError(error).errorName !== 'CORRUPT') throw error;
        }
      },
      { weak: true },
    );
  }

  /** Begins what can be begun, from where the last scan stopped, so that no row starves behind others. */
  #scanTable(): void {
    const { state, pgCount } = this.#options;
    if (pgCount() === 0) return;
    let begun = 0;
    this.#scanned = 0;
    for (let round = 0; round < SCAN_ROUNDS_MAX; round++) {
      if (this.#active.size >= RECLAIMS_ACTIVE_MAX) return; // a finished one schedules the next scan
      const rows = state.reclaims(this.#cursor, SCAN_ROWS);
      this.#scanned += rows.length;
      for (const row of rows) {
        if (this.#active.size >= RECLAIMS_ACTIVE_MAX) return;
        if (this.#begin(row)) begun++;
        this.#cursor = { ino: row.ino, truncateSeq: row.truncateSeq };
      }
      if (rows.length < SCAN_ROWS) {
        this.#cursor = undefined;
        this.#idle = begun === 0;
        return;
      }
    }
    this.#schedule(SCAN_DELAY_MS);
  }

  #begin(item: ReclaimItem): boolean {
    const { sessions, pgCount } = this.#options;
    const key = keyOf(item);
    if (this.#active.has(key)) return false;
    if (item.truncateSeq === 0 && (!sessions.allAnnounced || sessions.isOpen(item.ino))) return false;
    const pgs = pgsToPurge(item, pgCount());
    this.#active.set(key, { item, left: new Set(pgs) });
    const { ino, truncateSeq, from, chunkSize } = item;
    for (const pg of pgs) {
      const lane = this.#lane(pg);
      lane.add(key, { pg, ino, truncateSeq, truncateFrom: from, chunkSize });
      this.#pump(lane);
    }
    return true;
  }

  /** Records what is finished, one command at a time: what is finished meanwhile goes into the next one. */
  async #record(): Promise<void> {
    if (this.#recording) return;
    this.#recording = true;
    while (this.#finished.length > 0) await this.#recordAll(this.#finished.splice(0));
    this.#recording = false;
  }

  async #recordAll(items: readonly ReclaimItem[]): Promise<void> {
    const { proposer, log } = this.#options;
    const done: ReclaimDone[] = items.map(({ ino, truncateSeq }) => ({ ino, truncateSeq }));
    const value = { ...(done[0] as ReclaimDone), also: { items: done.slice(1) } };
    let retryMs = SCAN_DELAY_MS;
    try {
      const result = await proposer.propose({ $case: 'reclaimDone', value });
      if (result.error !== 0) log.warn({ done, error: result.errorText }, 'reclaims not recorded');
    } catch (error) {
      // The rows stay: they are found again, and what was purged is purged again.
      log.debug({ reclaims: done.length, error: toHoldfastError(error).errorName }, 'reclaims not recorded');
      retryMs = RECLAIM_TICK_MS;
    }
    const wasFull = this.#active.size >= RECLAIMS_ACTIVE_MAX;
    for (const item of items) {
      // Of a former leadership perhaps: a new one has begun anew.
      if (this.#active.get(keyOf(item))?.item === item) this.#active.delete(keyOf(item));
    }
    if (wasFull || retryMs > SCAN_DELAY_MS) this.#schedule(retryMs);
  }

  #lane(pg: number): PurgeLane {
    let lane = this.#lanes.get(pg);
    if (!lane) {
      lane = new PurgeLane(pg);
      this.#lanes.set(pg, lane);
    }
    return lane;
  }

  #pump(lane: PurgeLane): void {
    const { primary, pushPurge, clock } = this.#options;
    lane.pump(primary(lane.pg), clock.now(), pushPurge);
  }

  #checkLanes(): void {
    const now = this.#options.clock.now();
    for (const lane of this.#lanes.values()) {
      const primary = this.#options.primary(lane.pg);
      lane.recall(primary, now);
      this.#pump(lane);
    }
  }
}

function keyOf(key: ReclaimKey): string {
  return `${key.ino}/${key.truncateSeq}`;
}
