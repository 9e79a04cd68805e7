import { assert } from '../../common/assert.js';
import { LruMap } from '../../common/lru-map.js';
import { type Lease, LeaseMode } from '../../proto/gen/meta.js';
import { type Grant, type Holder, LeaseBook, type Waiter } from './lease-book.js';

export interface LeaseLimits {
  /** Leases of one session. */
  perSession: number;
  /** Leases of all sessions. */
  total: number;
  /** Leases that one trimming recalls. */
  trim: number;
}

export const LEASE_LIMITS: LeaseLimits = { perSession: 131_072, total: 524_288, trim: 256 };
/** Recalls begin when so much of a limit is used. */
const TRIM_AT = 7 / 8;
/**
 * Up to so much of a limit, leases come with listings. A mount that has seen many inodes holds `LEASES_MAX` of its own, half
 * of a session's limit, all the time: it is given further ones, and gives back those that it has not used for longest.
 */
const ROOMY_UP_TO = 3 / 4;

/** Asks a session to give leases back down to the modes named. */
export type RecallSink = (session: number, leases: Lease[]) => void;

/**
 * What sessions may believe without asking: the rules of granting, recalling and waiting. Pure and synchronous; the
 * time comes in, recalls go out through the sink, who waits is called back.
 *
 * Invariants:
 *  - an exclusive lease is the only lease on its inode;
 *  - while a change of an inode waits or is in the log, no session but its own is granted a lease on it; the change
 *    goes into the log only when no other session holds one. So whoever holds a lease knows every change;
 *  - what is being recalled is not granted again before it was given back;
 *  - a waiter waits for grants alone, never for another waiter: what a holder has to do before it can give a lease
 *    back passes by whoever waits for that lease.
 */
export class LeaseCore {
  readonly #book = new LeaseBook();
  readonly #limits: LeaseLimits;
  readonly #sink: RecallSink;
  readonly #recalls = new Map<number, Lease[]>();
  #seq = 0;
  /** The latest time that came in with an answer. */
  #now = 0;
  /** Sessions that are granted leases. */
  #wanting = 0;

  constructor(sink: RecallSink, limits: LeaseLimits = LEASE_LIMITS) {
    this.#sink = sink;
    this.#limits = limits;
  }

  get size(): number {
    return this.#book.size;
  }

  /** Inodes about which anything is remembered. */
  get inodes(): number {
    return this.#book.inodes;
  }

  /** Forgets everything, who waits too: the leadership is over. */
  clear(): void {
    this.#book.clear();
    this.#recalls.clear();
    this.#wanting = 0;
  }

  add(session: number, wants: boolean): void {
    if (this.#book.holders.has(session)) return;
    const waits = new Set<Waiter>();
    const holder: Holder = { session, wants, grants: new LruMap(), asked: 0, progressAt: 0, round: 0, waits };
    this.#book.holders.set(session, holder);
    if (wants) this.#wanting++;
  }

  /**
   * The session is over, and fenced where that was needed: others may have what it held. What it waits for itself is
   * called at once: nothing that it asks for has an effect any more.
   */
  remove(session: number, now: number): void {
    this.#now = now;
    const holder = this.#book.holders.get(session);
    if (!holder) return;
    this.#book.holders.delete(session);
    if (holder.wants) this.#wanting--;
    for (const grant of [...holder.grants.values()]) this.#reduce(grant, LeaseMode.LEASE_NONE);
    for (const waiter of [...holder.waits]) {
      waiter.left = Number.POSITIVE_INFINITY;
      waiter.run();
    }
    this.#flush();
  }

  knows(session: number): boolean {
    return this.#book.holders.has(session);
  }

  /** Whether no other session can hold a lease. */
  alone(session: number): boolean {
    const holder = this.#book.holders.get(session);
    return this.#wanting === (holder?.wants ? 1 : 0);
  }

  /** A session begins to say what it holds: announce() as often as it takes, then endAnnouncement(). What it said before is void. */
  beginAnnouncement(session: number): void {
    this.#holder(session).round++;
  }

  /**
   * A part of what a session holds. To a leader that granted it nothing yet this is what it has; else it keeps what both
   * sides know of, and what was being recalled is asked for again. What cannot be is recalled.
   * @param fresh this leader has not heard all of an announcement of the session yet
   */
  announce(session: number, leases: readonly Lease[], fresh: boolean, now: number): void {
    this.#now = now;
    const holder = this.#holder(session);
    for (const lease of leases) {
      this.#seq = Math.max(this.#seq, lease.seq);
      const known = holder.grants.peek(lease.ino);
      // What a fresh session began to say, and broke off, was never granted here.
      if (known && fresh && known.round !== holder.round) this.#reduce(known, LeaseMode.LEASE_NONE);
      const grant = holder.grants.peek(lease.ino);
      if (grant) this.#confirm(grant, lease);
      else if (fresh && this.#mayAdopt(holder, lease))
        this.#book.put(holder, lease.ino, lease.mode, lease.seq);
      else this.#queueRecall(session, { ...lease, mode: LeaseMode.LEASE_NONE });
    }
    this.#flush();
  }

  /** The session has said everything: what it did not name it does not hold. */
  endAnnouncement(session: number, now: number): void {
    this.#now = now;
    const holder = this.#holder(session);
    for (const grant of [...holder.grants.values()]) {
      if (grant.round !== holder.round) this.#reduce(grant, LeaseMode.LEASE_NONE);
    }
    this.#trim(holder, now);
    this.#flush();
  }

  /**
   * The lease that an answer may carry: `mode`, or less when others stand in the way, or what is held already.
   * Undefined: none, the answer is good for one use.
   */
  grant(session: number, ino: number, mode: LeaseMode, now: number): Lease | undefined {
    const holder = this.#book.holders.get(session);
    if (!holder?.wants) return undefined;
    // Most of a listing.
    if (this.#book.isUntouched(ino)) return this.#grantNew(holder, ino, mode, now);
    if (this.#book.changedByOthers(ino, session)) return undefined;
    const alone = !this.#book.heldByOthers(ino, session);
    if (!alone && this.#book.heldExclusively(ino, session)) return undefined;
    const possible = alone ? mode : LeaseMode.LEASE_SHARED;
    const grant = holder.grants.peek(ino);
    if (!grant) return this.#grantNew(holder, ino, possible, now);
    if (grant.asked !== undefined) return undefined;
    grant.mode = Math.max(grant.mode, possible);
    grant.seq = ++this.#seq;
    this.#book.refresh(grant);
    return { ino, mode: grant.mode, seq: grant.seq };
  }

  /**
   * The exclusive lease on an inode that the session has just made under a number of its own. It holds it whether there is room
   * or not: the bounds are passed by what a mount makes until it has answered the recalls that this begins.
   * @returns undefined: the session takes no leases
   */
  grantMade(session: number, ino: number, now: number): Lease | undefined {
    const holder = this.#book.holders.get(session);
    if (!holder?.wants) return undefined;
    this.#hasRoom(holder, now);
    const { seq } = this.#book.put(holder, ino, LeaseMode.LEASE_EXCLUSIVE, ++this.#seq);
    return { ino, mode: LeaseMode.LEASE_EXCLUSIVE, seq };
  }

  #grantNew(holder: Holder, ino: number, mode: LeaseMode, now: number): Lease | undefined {
    if (!this.#hasRoom(holder, now)) return undefined;
    const { seq } = this.#book.put(holder, ino, mode, ++this.#seq);
    return { ino, mode, seq };
  }

  /** Whether the session may read the inode now: nobody else holds it exclusively. */
  readable(session: number, ino: number): boolean {
    return !this.#book.heldExclusively(ino, session);
  }

  /**
   * Whether somebody holds the inode exclusively, and may know what nobody else does; whoever holds it is asked to let
   * others read it, and has written and told everything when that is granted.
   */
  unveil(ino: number, now: number): boolean {
    this.#now = now;
    let hidden = false;
    for (const grant of this.#book.grants(ino)) {
      if (grant.mode <= LeaseMode.LEASE_SHARED) continue;
      hidden = true;
      if (grant.asked === undefined || grant.asked > LeaseMode.LEASE_SHARED)
        this.#ask(grant, LeaseMode.LEASE_SHARED, now);
    }
    this.#flush();
    return hidden;
  }

  /** Calls `run` when the inodes may be read: at once, or when others have given back their exclusive leases. */
  whenReadable(session: number, inos: readonly number[], now: number, run: () => void): void {
    const hidden = inos.filter((ino) => !this.readable(session, ino));
    if (hidden.length === 0 || !this.knows(session)) {
      run();
      return;
    }
    // Who waited as well may have been called first, and have been granted what stands in the way again.
    const again = () => this.whenReadable(session, inos, Math.max(now, this.#now), run);
    this.#wait(session, hidden, LeaseMode.LEASE_SHARED, now, again);
  }

  /** Asks others for their leases on the inodes, and calls `run` when they have given them back. They may be granted new ones. */
  whenLeft(session: number, inos: readonly number[], now: number, run: () => void): void {
    this.#wait(session, inos, LeaseMode.LEASE_NONE, now, run);
  }

  /** Calls `run` when nobody else holds a lease on the inode; nobody is granted one meanwhile. */
  whenSole(session: number, ino: number, now: number, run: () => void): void {
    const inos = [ino];
    this.beginChange(session, inos, now, () => {
      this.endChange(session, inos);
      run();
    });
  }

  holds(session: number, ino: number): boolean {
    return this.#book.holders.get(session)?.grants.has(ino) ?? false;
  }

  /** Whether a session may be granted leases on what it did not ask for in particular. */
  roomy(session: number): boolean {
    const { perSession, total } = this.#limits;
    const holder = this.#book.holders.get(session);
    if (!holder) return false;
    return holder.grants.size < ROOMY_UP_TO * perSession && this.#book.size < ROOMY_UP_TO * total;
  }

  /** Whether another session holds a lease on the inode. */
  heldByOthers(session: number, ino: number): boolean {
    return this.#book.heldByOthers(ino, session);
  }

  /**
   * Calls `run` when the session may change the inodes: nobody else believes anything about them, nor will before
   * endChange, which has to follow with the same inodes.
   */
  beginChange(session: number, inos: readonly number[], now: number, run: () => void): void {
    for (const ino of inos) this.#book.beginChange(ino, session);
    this.#wait(session, inos, LeaseMode.LEASE_NONE, now, run);
  }

  /** The change was applied, or was not and never will be. */
  endChange(session: number, inos: readonly number[]): void {
    for (const ino of inos) this.#book.endChange(ino, session);
  }

  /** Gives leases back; what names an older grant than the last one is void. A mode beyond what was asked: not yet. */
  returned(session: number, leases: readonly Lease[], now: number): void {
    const holder = this.#book.holders.get(session);
    if (!holder) return;
    this.#now = now;
    for (const { ino, mode, seq } of leases) {
      const grant = holder.grants.peek(ino);
      if (!grant || seq < grant.seq) continue;
      if (grant.asked !== undefined) holder.progressAt = now;
      this.#reduce(grant, lesser(grant.mode, mode));
    }
    this.#flush();
  }

  /** Sessions that were asked for something back and have not answered for longer than `timeoutMs`. */
  overdue(now: number, timeoutMs: number): number[] {
    if (this.#book.asked === 0) return [];
    const late = [...this.#book.holders.values()].filter(
      (holder) => holder.asked > 0 && now - holder.progressAt > timeoutMs,
    );
    return late.map((holder) => holder.session);
  }

  /** Counts `ms` as time in which nobody could answer: this process was paused. */
  forgive(ms: number): void {
    for (const holder of this.#book.holders.values()) holder.progressAt += ms;
  }

  /** What a session holds, the least recently granted first. */
  held(session: number): Lease[] {
    const grants = this.#book.holders.get(session)?.grants.values() ?? [];
    return [...grants].map(({ ino, mode, seq }) => ({ ino, mode, seq }));
  }

  #holder(session: number): Holder {
    const holder = this.#book.holders.get(session);
    assert(holder, `session ${session} is known`);
    return holder;
  }

  /** The holder names what it was granted here. */
  #confirm(grant: Grant, lease: Lease): void {
    grant.round = grant.holder.round;
    this.#reduce(grant, lesser(grant.mode, lease.mode));
    if (grant.mode === LeaseMode.LEASE_NONE) return;
    grant.seq = lease.seq;
    if (grant.asked !== undefined) this.#push(grant, grant.asked);
  }

  #mayAdopt(holder: Holder, lease: Lease): boolean {
    const { perSession, total } = this.#limits;
    if (!holder.wants || holder.grants.size >= perSession || this.#book.size >= total) return false;
    if (lease.mode !== LeaseMode.LEASE_SHARED && lease.mode !== LeaseMode.LEASE_EXCLUSIVE) return false;
    if (lease.mode === LeaseMode.LEASE_EXCLUSIVE) return !this.#book.heldByOthers(lease.ino, holder.session);
    return !this.#book.heldExclusively(lease.ino, holder.session);
  }

  #wait(session: number, inos: readonly number[], keep: LeaseMode, now: number, run: () => void): void {
    const holder = this.#book.holders.get(session);
    let waiter: Waiter | undefined;
    for (const ino of holder ? inos : []) {
      for (const grant of this.#book.grants(ino)) {
        if (grant.holder.session === session || grant.mode <= keep) continue;
        waiter ??= { holder: holder as Holder, keep, left: 0, run };
        waiter.left++;
        if (grant.waiters) grant.waiters.push(waiter);
        else grant.waiters = [waiter];
        if (grant.asked === undefined || grant.asked > keep) this.#ask(grant, keep, now);
      }
    }
    if (!waiter) {
      run();
      return;
    }
    waiter.holder.waits.add(waiter);
    this.#flush();
  }

  #reduce(grant: Grant, mode: LeaseMode): void {
    if (grant.asked !== undefined && mode <= grant.asked) this.#book.settle(grant);
    const { waiters } = grant;
    if (mode === LeaseMode.LEASE_NONE) this.#book.remove(grant);
    else grant.mode = mode;
    if (!waiters) return;
    const still = waiters.filter((waiter) => mode > waiter.keep);
    grant.waiters = still.length > 0 ? still : undefined;
    for (const waiter of waiters) {
      if (mode > waiter.keep || --waiter.left > 0) continue;
      waiter.holder.waits.delete(waiter);
      waiter.run();
    }
  }

  #ask(grant: Grant, keep: LeaseMode, now: number): void {
    this.#book.ask(grant, keep, now);
    this.#push(grant, keep);
  }

  #push(grant: Grant, keep: LeaseMode): void {
    this.#queueRecall(grant.holder.session, { ino: grant.ino, mode: keep, seq: grant.seq });
  }

  #queueRecall(session: number, lease: Lease): void {
    const queued = this.#recalls.get(session);
    if (queued) queued.push(lease);
    else this.#recalls.set(session, [lease]);
  }

  #flush(): void {
    for (const [session, leases] of this.#recalls) {
      this.#recalls.delete(session);
      this.#sink(session, leases);
    }
  }

  #hasRoom(holder: Holder, now: number): boolean {
    const { perSession, total } = this.#limits;
    if (holder.grants.size >= TRIM_AT * perSession || this.#book.size >= TRIM_AT * total) {
      this.#trim(holder, now);
      this.#flush();
    }
    return holder.grants.size < perSession && this.#book.size < total;
  }

  /** Recalls the least recently granted leases of who has too many; what is being recalled already does not count. */
  #trim(holder: Holder, now: number): void {
    const { perSession, total } = this.#limits;
    if (holder.grants.size - holder.asked >= TRIM_AT * perSession) this.#recallOldest(holder, now);
    if (this.#book.size - this.#book.asked < TRIM_AT * total) return;
    let most = holder;
    for (const other of this.#book.holders.values()) {
      if (other.grants.size - other.asked > most.grants.size - most.asked) most = other;
    }
    this.#recallOldest(most, now);
  }

  #recallOldest(holder: Holder, now: number): void {
    let left = this.#limits.trim;
    for (const grant of holder.grants.values()) {
      if (left === 0) return;
      if (grant.asked !== undefined) continue;
      this.#ask(grant, LeaseMode.LEASE_NONE, now);
      left--;
    }
  }
}

/** The lesser of a mode held and one that came over the wire, which may be any number. */
function lesser(held: LeaseMode, named: LeaseMode): LeaseMode {
  return Math.max(LeaseMode.LEASE_NONE, Math.min(held, named));
}
