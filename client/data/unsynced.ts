import { LruMap } from '../../common/lru-map.js';
import { type Lineage, survived } from '../../proto/lineage.js';
import { type Piece, sliceParts } from './extent.js';
import { RangeIndex } from './range-index.js';
import { WriteErrors } from './write-errors.js';

/** Counted for each kept write beside its bytes. */
const KEPT_OVERHEAD_BYTES = 256;

/** Of an operation, as the servers number those of a placement group. */
export interface OpVersion {
  epoch: number;
  seq: number;
}

/** An acknowledged write whose bytes are kept until they are synced. */
interface Kept extends Piece {
  readonly group: Group;
  readonly version: OpVersion;
  readonly ack: number;
}

interface Group {
  readonly pg: number;
  readonly file: UnsyncedWrites;
  /** Number of the newest acknowledgement. */
  newest: number;
  /** Of writes whose bytes are not kept: the newest of each epoch, in the order of their acknowledgements. */
  readonly bare: Map<number, { seq: number; ack: number }>;
  /** In the order in which they were added. */
  readonly kept: Set<Kept>;
  /** Those of all groups of the file, by where they lie. */
  readonly places: RangeIndex<Kept>;
}

/** Epochs remembered of writes that are not kept; beyond it the oldest counts for all before. */
const BARE_EPOCHS_MAX = 64;

/** Placement groups, and the files whose kept writes lie in each. */
export type GroupFiles = Map<number, Set<UnsyncedWrites>>;

function addTo(groups: GroupFiles, { pg, file }: Group): void {
  const files = groups.get(pg);
  if (files) files.add(file);
  else groups.set(pg, new Set([file]));
}

/** Memory for the kept writes of all files of a mount: the oldest are let go. */
export class KeptBudget {
  readonly #bytesMax: number;
  readonly #kept = new Set<Kept>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(kept: Kept): void {
    kept.group.kept.add(kept);
    kept.group.places.add(kept);
    this.#kept.add(kept);
    this.#bytes += sizeOf(kept);
    for (const oldest of this.#kept) {
      if (this.#bytes <= this.#bytesMax) return;
      this.remove(oldest);
      note(oldest.group, oldest.version, oldest.ack);
    }
  }

  /** The groups of the oldest kept writes, which make up `bytes`, and their files. */
  oldest(bytes: number): GroupFiles {
    const groups: GroupFiles = new Map();
    let seen = 0;
    for (const kept of this.#kept) {
      if (seen >= bytes) break;
      seen += sizeOf(kept);
      addTo(groups, kept.group);
    }
    return groups;
  }

  /** Those of `pgs` in which something is kept, and its files. */
  within(pgs: ReadonlySet<number>): GroupFiles {
    const groups: GroupFiles = new Map();
    for (const { group } of this.#kept) if (pgs.has(group.pg)) addTo(groups, group);
    return groups;
  }

  /** @returns false: it was let go before */
  remove(kept: Kept): boolean {
    if (!this.#kept.delete(kept)) return false;
    kept.group.kept.delete(kept);
    kept.group.places.remove(kept);
    this.#bytes -= sizeOf(kept);
    return true;
  }
}

const sizeOf = ({ start, end }: Piece): number => end - start + KEPT_OVERHEAD_BYTES;

function note({ bare }: Group, { epoch, seq }: OpVersion, ack: number): void {
  const known = bare.get(epoch);
  if (known && known.seq >= seq) known.ack = Math.max(known.ack, ack);
  else bare.set(epoch, { seq, ack: Math.max(ack, known?.ack ?? 0) });
  if (bare.size <= BARE_EPOCHS_MAX) return;
  const [first, second] = [...bare.keys()].sort((a, b) => a - b) as [number, number];
  // Taken for older than it is: it may be called lost when it is not, never the other way round.
  const [one, two] = [bare.get(first), bare.get(second)] as [{ ack: number }, { ack: number; seq: number }];
  bare.delete(second);
  bare.set(first, { seq: two.seq, ack: Math.max(one.ack, two.ack) });
}

/** What a SYNC did not find on the servers any more. */
export interface LostWrites {
  /** To be written again, the newest first where they overlap. */
  pieces: Piece[];
  /** Others are lost whose bytes are not here either. */
  gone: boolean;
}

/**
 * The writes of one file that are acknowledged and not yet synced, by placement group. Pure.
 *
 * Bytes are kept only as long as nobody else may have written over them, and nothing newer was: what is kept may be
 * written again at any time. Invariant: kept writes do not overlap one another nor any later write of this mount.
 */
export class UnsyncedWrites {
  readonly #budget: KeptBudget;
  readonly #groups = new Map<number, Group>();
  readonly #places = new RangeIndex<Kept>();
  /** Of those that failed. */
  readonly errors = new WriteErrors();
  /** Told of what a sync that nobody asked for has found lost, for as long as the file is in use. */
  onLost: ((lost: LostWrites) => void) | undefined;
  #acks = 0;

  constructor(
    readonly ino: number,
    budget: KeptBudget,
  ) {
    this.#budget = budget;
  }

  /** Groups that a SYNC is due in. */
  get groups(): number[] {
    return [...this.#groups.keys()];
  }

  has(pg: number): boolean {
    return this.#groups.has(pg);
  }

  /** Something of the group is to be synced of which no more is known. */
  touch(pg: number): Group {
    let group = this.#groups.get(pg);
    if (!group) {
      group = { pg, file: this, newest: 0, bare: new Map(), kept: new Set(), places: this.#places };
      this.#groups.set(pg, group);
    }
    group.newest = ++this.#acks;
    return group;
  }

  /** A write without SYNC was acknowledged. @param parts its bytes; undefined: it could not be written again */
  add(pg: number, version: OpVersion, start: number, end: number, parts: Buffer[] | undefined): void {
    this.cut(start, end);
    const group = this.touch(pg);
    if (parts) this.#budget.add({ group, version, ack: this.#acks, start, end, parts });
    else note(group, version, this.#acks);
  }

  /** Bytes [start, end) were written with SYNC, cut off or punched: what was kept of them is of no use. */
  cut(start: number, end: number): void {
    for (const old of this.#places.overlapping(start, end)) {
      if (!this.#budget.remove(old)) continue;
      this.#keepRest(old, old.start, start);
      this.#keepRest(old, end, old.end);
    }
  }

  /** What the servers hold of [start, end), when all of it was written here by one write that is kept. */
  kept(start: number, end: number): Buffer[] | undefined {
    for (const piece of this.#places.overlapping(start, end)) {
      if (piece.start <= start && end <= piece.end)
        return sliceParts(piece.parts, start - piece.start, end - piece.start);
    }
    return undefined;
  }

  #keepRest(old: Kept, from: number, to: number): void {
    const [start, end] = [Math.max(from, old.start), Math.min(to, old.end)];
    if (start >= end) return;
    const parts = sliceParts(old.parts, start - old.start, end - old.start);
    this.#budget.add({ ...old, start, end, parts });
  }

  /** Others may write to the file from now on: what they write must not be overwritten by what is kept. */
  letGo(): void {
    for (const pg of this.groups) this.letGoOf(pg);
  }

  /** The same for one group. */
  letGoOf(pg: number): void {
    const group = this.#groups.get(pg);
    for (const kept of group?.kept ?? []) {
      this.#budget.remove(kept);
      note(kept.group, kept.version, kept.ack);
    }
  }

  /** Nobody will ask about the group again. */
  forget(pg: number): void {
    for (const kept of this.#groups.get(pg)?.kept ?? []) this.#budget.remove(kept);
    this.#groups.delete(pg);
  }

  clear(): void {
    for (const pg of this.groups) this.forget(pg);
  }

  /** To be taken before a SYNC is sent. */
  mark(pg: number): number {
    return this.#groups.get(pg)?.newest ?? 0;
  }

  /** A SYNC behind `mark` was answered: what it covers is not remembered any more. */
  synced(pg: number, mark: number, lineage: Lineage): LostWrites {
    const lost: LostWrites = { pieces: [], gone: false };
    const group = this.#groups.get(pg);
    if (!group) return lost;
    for (const [epoch, { seq, ack }] of [...group.bare]) {
      // Of an epoch the newest is remembered: when that is there, all are.
      if (!survived({ epoch, seq }, lineage)) lost.gone = true;
      else if (ack > mark) continue;
      group.bare.delete(epoch);
    }
    for (const kept of [...group.kept].reverse()) {
      if (kept.ack > mark) continue;
      this.#budget.remove(kept);
      if (!survived(kept.version, lineage)) lost.pieces.push(kept);
    }
    if (group.newest <= mark) this.#groups.delete(pg);
    return lost;
  }

  /**
   * As synced(), of a SYNC that nobody waits for.
   * @param revive takes the file into use if it is in none, to have written again what is lost; undefined: it cannot be, and that is
   * remembered for who opens it. What it returns ends that use.
   */
  syncedUnasked(pg: number, mark: number, lineage: Lineage, revive: () => (() => void) | undefined): void {
    const end = !this.onLost && this.#hasLost(pg, lineage) ? revive() : undefined;
    if (!this.onLost && this.#hasLost(pg, lineage)) this.letGoOf(pg);
    else {
      const lost = this.synced(pg, mark, lineage);
      if (lost.gone || lost.pieces.length > 0) this.onLost?.(lost);
    }
    end?.();
  }

  #hasLost(pg: number, lineage: Lineage): boolean {
    const group = this.#groups.get(pg);
    if (!group) return false;
    for (const [epoch, { seq }] of group.bare) if (!survived({ epoch, seq }, lineage)) return true;
    for (const { version } of group.kept) if (!survived(version, lineage)) return true;
    return false;
  }
}

/** Inodes whose unsynced and failed writes are remembered behind their last close; the oldest are forgotten. */
export const UNSYNCED_FILES_MAX = 4096;

/** The unsynced writes of all files of a mount, open or closed: a file may be opened again to be synced. */
export class UnsyncedTable {
  readonly #budget: KeptBudget;
  readonly #files = new LruMap<number, UnsyncedWrites>();

  /** @param keptBytesMax for the bytes of unsynced writes, of all files together */
  constructor(keptBytesMax: number) {
    this.#budget = new KeptBudget(keptBytesMax);
  }

  /** Bytes that are kept to be written again. */
  get keptBytes(): number {
    return this.#budget.bytes;
  }

  /** As KeptBudget.oldest(). */
  oldest(bytes: number): GroupFiles {
    return this.#budget.oldest(bytes);
  }

  /** As KeptBudget.within(). */
  within(pgs: ReadonlySet<number>): GroupFiles {
    return this.#budget.within(pgs);
  }

  /** Those of one file, which is open from now on. */
  of(ino: number): UnsyncedWrites {
    const known = this.#files.peek(ino) ?? new UnsyncedWrites(ino, this.#budget);
    this.#files.set(ino, known);
    return known;
  }

  /** The file has no user here any more. @param inUse of others */
  closed(ino: number, inUse: (ino: number) => boolean): void {
    const writes = this.#files.peek(ino);
    if (writes) writes.onLost = undefined;
    if (writes?.groups.length === 0 && !writes.errors.pending) this.#files.delete(ino);
    if (this.#files.size <= UNSYNCED_FILES_MAX) return;
    for (const [oldest, unsynced] of this.#files) {
      if (inUse(oldest)) continue;
      unsynced.clear();
      this.#files.delete(oldest);
      return;
    }
  }

  /** Others may write to the file from now on. */
  shared(ino: number): void {
    this.#files.peek(ino)?.letGo();
  }
}
