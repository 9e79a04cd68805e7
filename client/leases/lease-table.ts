import { assert } from '../../common/assert.js';
import { LruMap } from '../../common/lru-map.js';
import { type Lease, LeaseMode } from '../../proto/gen/meta.js';

/**
 * Which inodes this session holds leases on, and until when it may believe them. Pure: time is passed in, messages go
 * in and come out.
 *
 * Invariants:
 * - a grant whose number is not above the last recall of its inode is void, however late it arrives;
 * - nothing is believed longer than the lease time after the *sending* of the last request that was answered;
 * - while a recall is being obeyed, the inode counts as held only as far as the recall lets it; another leader is told
 *   of all that was held, for what was buffered under it is not yet where others see it.
 */

/** Leases held at a time; the least recently used are given back beyond it. */
export const LEASES_MAX = 65_536;
/** Inodes whose last recall is remembered; what is forgotten is covered by one number for all. */
export const RECALLS_REMEMBERED_MAX = 16_384;

interface Held {
  mode: LeaseMode;
  /** Of the last grant; 0: assumed, the grant is on its way. */
  seq: number;
  /** The stamp from which on answers speak under this lease. */
  since: number;
  /** Used by the clock algorithm of trim(). */
  used: boolean;
}

/** What a recall asks for, as the holder has to carry it out. */
export interface RecallOrder {
  ino: number;
  from: LeaseMode;
  keep: LeaseMode;
  /** For the LeaseReturn. */
  seq: number;
  /** Counts what was announced: a later leader numbers its grants anew, and knows nothing of this order. */
  round: number;
}

/** An inode whose lease is being given back. */
interface Returning {
  /** What was held before. */
  mode: LeaseMode;
  /** That are being carried out. */
  orders: number;
}

export class LeaseTable {
  readonly #held = new Map<number, Held>();
  readonly #returning = new Map<number, Returning>();
  readonly #recalledUpTo = new LruMap<number, number>();
  readonly #leasesMax: number;
  #recalledFloor = 0;
  #leaseMs = 0;
  #believedUntil = -Infinity;
  #stamp = 0;
  #round = 0;

  constructor(leasesMax = LEASES_MAX) {
    assert(leasesMax > 0, 'some lease may be held');
    this.#leasesMax = leasesMax;
  }

  get size(): number {
    return this.#held.size;
  }

  /** Clock ms until which leases are believed. */
  get believedUntil(): number {
    return this.#believedUntil;
  }

  /** The leader said how long leases are good; 0: it grants none. */
  setLeaseMs(leaseMs: number): void {
    this.#leaseMs = leaseMs;
  }

  /** A request that was sent at `sentAt`, clock ms, has been answered. */
  answered(sentAt: number): void {
    if (this.#leaseMs > 0) this.#believedUntil = Math.max(this.#believedUntil, sentAt + this.#leaseMs);
  }

  /** To be taken when an answer arrives, before anything else does: see covers(). */
  stamp(): number {
    return this.#stamp;
  }

  /** Takes a grant. @returns false when it is void: recalled before it arrived */
  granted({ ino, mode, seq }: Lease): boolean {
    if (mode !== LeaseMode.LEASE_SHARED && mode !== LeaseMode.LEASE_EXCLUSIVE) return false;
    if (seq <= this.#recalledFloor || seq <= (this.#recalledUpTo.peek(ino) ?? 0)) return false;
    const held = this.#held.get(ino);
    if (held) {
      if (seq < held.seq) return true; // an older grant of what is held: arrives late, says nothing new
      held.seq = seq;
      // A repeated grant may say less than what is held; only a recall takes something away.
      held.mode = Math.max(held.mode, mode);
      held.used = true;
    } else this.#held.set(ino, { mode, seq, since: ++this.#stamp, used: false });
    return true;
  }

  /** An inode made here under an exclusive lease of its directory: nobody else can know it before that is given back. */
  assume(ino: number): void {
    const held = this.#held.get(ino);
    if (held) held.mode = LeaseMode.LEASE_EXCLUSIVE;
    else this.#held.set(ino, { mode: LeaseMode.LEASE_EXCLUSIVE, seq: 0, since: ++this.#stamp, used: false });
  }

  /** What may be believed of an inode now. */
  mode(ino: number, now: number): LeaseMode {
    if (now >= this.#believedUntil) return LeaseMode.LEASE_NONE;
    const held = this.#held.get(ino);
    if (!held) return LeaseMode.LEASE_NONE;
    held.used = true;
    return held.mode;
  }

  /** Whether a lease is held at all, believed just now or not. @param stamp and was already when an answer arrived */
  has(ino: number, stamp = Number.POSITIVE_INFINITY): boolean {
    const held = this.#held.get(ino);
    return held !== undefined && held.since <= stamp;
  }

  /** Whether an answer that arrived at `stamp` is protected by a lease from then until now. */
  covers(ino: number, stamp: number, now: number): boolean {
    const held = now < this.#believedUntil ? this.#held.get(ino) : undefined;
    return held !== undefined && held.since <= stamp;
  }

  /** How long the kernel may believe what is known of an inode, ms; 0: not at all. */
  ttlMs(ino: number, now: number): number {
    return this.#held.has(ino) ? Math.max(0, this.#believedUntil - now) : 0;
  }

  /** The leader wants a lease back. What goes beyond `keep` is not believed from here on. Ends with returned(). */
  recalled({ ino, mode: keep, seq }: Lease): RecallOrder {
    const held = this.#held.get(ino);
    const mode = held?.mode ?? LeaseMode.LEASE_NONE;
    this.#remember(ino, seq);
    // A grant that the recall does not mean is of later date.
    if (held && held.seq > seq) {
      const order = this.#order(ino, LeaseMode.LEASE_NONE, LeaseMode.LEASE_NONE, seq);
      return { ...order, from: LeaseMode.LEASE_NONE };
    }
    if (held && keep < mode) {
      if (keep === LeaseMode.LEASE_SHARED) held.mode = keep;
      else this.#held.delete(ino);
    }
    return this.#order(ino, mode, Math.min(keep, mode), seq);
  }

  /** Takes back one's own lease. Ends with returned(). @returns undefined when none is held */
  drop(ino: number): RecallOrder | undefined {
    const held = this.#held.get(ino);
    if (!held) return undefined;
    this.#held.delete(ino);
    return this.#order(ino, held.mode, LeaseMode.LEASE_NONE, held.seq);
  }

  #order(ino: number, mode: LeaseMode, keep: LeaseMode, seq: number): RecallOrder {
    const returning = this.#returning.get(ino) ?? { mode, orders: 0 };
    returning.mode = Math.max(returning.mode, mode);
    returning.orders++;
    this.#returning.set(ino, returning);
    return { ino, from: returning.mode, keep, seq, round: this.#round };
  }

  /**
   * An order was carried out. @returns what the leader is to be told; undefined: it is another one, which was told that
   * all of it is held, and asks for itself
   */
  returned({ ino, keep, seq, round }: RecallOrder): Lease | undefined {
    const returning = this.#returning.get(ino);
    if (returning && --returning.orders === 0) this.#returning.delete(ino);
    return this.isCurrent({ round }) ? { ino, mode: keep, seq } : undefined;
  }

  /** Whether the order is of the leader that was told last what is held. */
  isCurrent({ round }: Pick<RecallOrder, 'round'>): boolean {
    return round === this.#round;
  }

  /**
   * Inodes to give back so that at most the bound is held: those not used since the last time round, oldest first.
   * @param mayGo false for what is in use
   */
  surplus(mayGo: (ino: number) => boolean): number[] {
    const found: number[] = [];
    let excess = this.#held.size - this.#leasesMax;
    if (excess <= 0) return found;
    let visits = 2 * this.#held.size;
    for (const [ino, held] of this.#held) {
      if (excess <= 0 || visits-- <= 0) break;
      if (held.used || !mayGo(ino)) {
        held.used = false;
        this.#held.delete(ino);
        this.#held.set(ino, held); // to the end: the loop comes by again
        continue;
      }
      found.push(ino);
      excess--;
      // Stays held until the caller has given it back; out of the way of this loop it is at the front.
    }
    return found;
  }

  /** For the Hello to another leader: its numbers begin anew. */
  announce(): Lease[] {
    this.#recalledUpTo.clear();
    this.#recalledFloor = 0;
    this.#round++;
    const leases: Lease[] = [];
    for (const [ino, held] of this.#held) {
      const mode = Math.max(held.mode, this.#returning.get(ino)?.mode ?? LeaseMode.LEASE_NONE);
      leases.push({ ino, mode, seq: held.seq });
      held.seq = 0;
    }
    for (const [ino, { mode }] of this.#returning) {
      if (mode > LeaseMode.LEASE_NONE && !this.#held.has(ino)) leases.push({ ino, mode, seq: 0 });
    }
    return leases;
  }

  /** The session is no more, and every lease with it. @returns the inodes that were leased */
  lost(): number[] {
    const inos = [...this.#held.keys()];
    this.#held.clear();
    this.#returning.clear();
    this.#round++;
    this.#recalledUpTo.clear();
    this.#recalledFloor = 0;
    this.#believedUntil = -Infinity;
    return inos;
  }

  #remember(ino: number, seq: number): void {
    const known = this.#recalledUpTo.peek(ino) ?? 0;
    this.#recalledUpTo.set(ino, Math.max(known, seq));
    if (this.#recalledUpTo.size <= RECALLS_REMEMBERED_MAX) return;
    const [, upTo] = this.#recalledUpTo.shift() as [number, number];
    this.#recalledFloor = Math.max(this.#recalledFloor, upTo);
  }
}
