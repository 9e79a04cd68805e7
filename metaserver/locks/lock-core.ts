import type { ErrorName } from '../../proto/errors.js';
import { type Lock, LockKind, LockType } from '../../proto/gen/meta.js';

/** Locks that one session may hold and wait for; a further one is refused with ENOLCK. */
export const LOCKS_PER_SESSION_MAX = 65_536;
/** Waiting owners that the search for a deadlock looks at; beyond it none is found. */
export const DEADLOCK_SEARCH_MAX = 10_000;

/** Undefined: it is set. */
export type LockOutcome = (error: ErrorName | undefined) => void;

/** What one owner holds in a place: never nothing. */
interface Held {
  readonly session: number;
  readonly locks: readonly Lock[];
}

interface Waiter {
  readonly session: number;
  /** The session's number for it. */
  readonly id: number;
  readonly owner: string;
  readonly lock: Lock;
  done: LockOutcome;
}

/** Locks of one kind on one inode. */
interface Locked {
  /** By owner. */
  readonly held: Map<string, Held>;
  /** Locks held for writing: without any, nothing is in the way of reading. */
  writes: number;
  /** In the order of their arrival. */
  readonly waiting: Set<Waiter>;
}

interface Holder {
  readonly session: number;
  /** Where it holds or waits for locks. */
  readonly places: Set<string>;
  readonly waits: Map<number, Waiter>;
  count: number;
}

/**
 * Advisory locks of all sessions: fcntl's byte ranges (of processes and of open files) and flock's whole files, which do
 * not see each other. Pure and synchronous. Each owner is a number that its session's kernel gave.
 *
 * Invariants: no two owners hold overlapping locks of one kind of which one is for writing; the locks of one owner do not
 * overlap; `count` of a session is the number of its locks held and waited for, `places` are where those are.
 */
export class LockCore {
  readonly #places = new Map<string, Locked>();
  readonly #holders = new Map<number, Holder>();
  /** What each owner waits for. */
  readonly #waits = new Map<string, Set<Waiter>>();
  readonly #perSession: number;

  constructor(perSession = LOCKS_PER_SESSION_MAX) {
    this.#perSession = perSession;
  }

  clear(): void {
    this.#places.clear();
    this.#holders.clear();
    this.#waits.clear();
  }

  /** A lock that keeps the session's owner from having this one; undefined: none does. */
  test(session: number, lock: Lock): Lock | undefined {
    const locked = this.#places.get(placeOf(lock));
    return locked && conflict(locked, ownerOf(session, lock), lock);
  }

  /**
   * Sets or takes away a lock; what the owner held there before gives way to it. With `wait`, `done` is called once it
   * can be had (or never will be: EDEADLK, EINTR), else at once. The same wait asked for again takes the former's place.
   */
  set(session: number, lock: Lock, wait: number | undefined, done: LockOutcome): void {
    const owner = ownerOf(session, lock);
    const place = placeOf(lock);
    const waiting = wait === undefined ? undefined : this.#holders.get(session)?.waits.get(wait);
    if (waiting) {
      waiting.done = done;
      return;
    }
    if (lock.type === LockType.LOCK_UNLOCK) {
      this.#replace(session, place, owner, lock);
      done(undefined);
      return;
    }
    // flock(2): a lock is not converted in one step, the former is given up first.
    if (lock.kind === LockKind.LOCK_FLOCK) this.#giveUpOther(session, place, owner, lock);
    const inTheWay = this.#places.get(place);
    if (!inTheWay || !conflict(inTheWay, owner, lock)) {
      if (this.#countOf(session) + 2 > this.#perSession) done('ENOLCK');
      else {
        this.#replace(session, place, owner, lock);
        done(undefined);
      }
      return;
    }
    if (wait === undefined) done('EAGAIN');
    else if (this.#countOf(session) >= this.#perSession) done('ENOLCK');
    else if (lock.kind === LockKind.LOCK_POSIX && this.#wouldDeadlock(owner, inTheWay, lock)) done('EDEADLK');
    else this.#enqueue(inTheWay, { session, id: wait, owner, lock, done });
  }

  /** Ends a wait with EINTR, if it still waits. */
  cancel(session: number, wait: number): void {
    const waiter = this.#holders.get(session)?.waits.get(wait);
    if (!waiter) return;
    this.#dequeue(waiter);
    this.#sweep(placeOf(waiter.lock));
    waiter.done('EINTR');
  }

  /** What the session says that it holds takes the place of what was known; what it waited for it asks for again. */
  announce(session: number, locks: readonly Lock[]): void {
    const before = this.#drop(session);
    for (const lock of locks) {
      const place = placeOf(lock);
      const owner = ownerOf(session, lock);
      const locked = this.#places.get(place);
      // Given to another one since: cannot be unless a leader broke its word.
      if (locked && conflict(locked, owner, lock)) continue;
      if (this.#countOf(session) < this.#perSession) this.#put(session, this.#locked(place), owner, lock);
    }
    for (const place of before) this.#wake(place);
  }

  /** The session is over. */
  remove(session: number): void {
    const places = this.#drop(session);
    this.#holders.delete(session);
    for (const place of places) this.#wake(place);
  }

  /** Locks that the session holds. */
  held(session: number): Lock[] {
    const locks: Lock[] = [];
    for (const place of this.#holders.get(session)?.places ?? []) {
      for (const held of this.#places.get(place)?.held.values() ?? [])
        if (held.session === session) locks.push(...held.locks);
    }
    return locks;
  }

  /** Files, one for each kind, in which a session has something, as far as it is remembered. */
  placesOf(session: number): number {
    return this.#holders.get(session)?.places.size ?? 0;
  }

  /** Files about which anything is remembered, one for each kind. */
  get places(): number {
    return this.#places.size;
  }

  #giveUpOther(session: number, place: string, owner: string, lock: Lock): void {
    const own = this.#places.get(place)?.held.get(owner)?.locks[0];
    if (!own || own.type === lock.type) return;
    this.#replace(session, place, owner, { ...lock, type: LockType.LOCK_UNLOCK });
  }

  /** Gives the owner this lock in place of what it holds in the range, and wakes who can go on. */
  #replace(session: number, place: string, owner: string, lock: Lock): void {
    if (this.#put(session, this.#locked(place), owner, lock)) this.#wake(place);
    else this.#sweep(place);
  }

  /** @returns whether the owner held something there before: it may be in nobody's way any more */
  #put(session: number, locked: Locked, owner: string, lock: Lock): boolean {
    const before = locked.held.get(owner)?.locks ?? [];
    const own = before.flatMap((held) => outside(held, lock));
    if (lock.type !== LockType.LOCK_UNLOCK) own.push(lock);
    const after = merged(own);
    if (after.length > 0) locked.held.set(owner, { session, locks: after });
    else locked.held.delete(owner);
    locked.writes += writesAmong(after) - writesAmong(before);
    const holder = this.#holder(session);
    holder.count += after.length - before.length;
    if (after.length > 0) holder.places.add(placeOf(lock));
    else forgetIfNothing(holder, locked, placeOf(lock));
    return before.length > 0;
  }

  #enqueue(locked: Locked, waiter: Waiter): void {
    locked.waiting.add(waiter);
    const holder = this.#holder(waiter.session);
    holder.waits.set(waiter.id, waiter);
    holder.places.add(placeOf(waiter.lock));
    holder.count++;
    const waits = this.#waits.get(waiter.owner);
    if (waits) waits.add(waiter);
    else this.#waits.set(waiter.owner, new Set([waiter]));
  }

  #dequeue(waiter: Waiter): void {
    const place = placeOf(waiter.lock);
    const locked = this.#locked(place);
    locked.waiting.delete(waiter);
    const holder = this.#holder(waiter.session);
    holder.waits.delete(waiter.id);
    holder.count--;
    forgetIfNothing(holder, locked, place);
    const waits = this.#waits.get(waiter.owner);
    waits?.delete(waiter);
    if (waits?.size === 0) this.#waits.delete(waiter.owner);
  }

  /** Sets what can be had now, the first that came first. */
  #wake(place: string): void {
    const locked = this.#places.get(place);
    if (!locked) return;
    const granted: Waiter[] = [];
    // What is set may take the place of a stronger lock of its owner: whoever waits is looked at again then.
    for (let again = true; again; ) {
      again = false;
      for (const waiter of locked.waiting) {
        if (conflict(locked, waiter.owner, waiter.lock)) continue;
        this.#dequeue(waiter);
        granted.push(waiter);
        again = this.#put(waiter.session, locked, waiter.owner, waiter.lock);
        if (again) break;
      }
    }
    this.#sweep(place);
    for (const waiter of granted) waiter.done(undefined);
  }

  /** Whether one of those in the way waits, over others perhaps, for this owner. */
  #wouldDeadlock(owner: string, inTheWay: Locked, lock: Lock): boolean {
    const seen = new Set<string>();
    const next = conflicts(inTheWay, owner, lock);
    for (let current = next.pop(); current !== undefined; current = next.pop()) {
      if (current === owner) return true;
      if (seen.has(current) || seen.size >= DEADLOCK_SEARCH_MAX) continue;
      seen.add(current);
      for (const waiter of this.#waits.get(current) ?? []) {
        const locked = this.#places.get(placeOf(waiter.lock));
        if (locked) next.push(...conflicts(locked, waiter.owner, waiter.lock));
      }
    }
    return false;
  }

  /** Forgets what the session holds and waits for. @returns where that was */
  #drop(session: number): string[] {
    const holder = this.#holders.get(session);
    if (!holder) return [];
    const places = [...holder.places];
    for (const waiter of [...holder.waits.values()]) this.#dequeue(waiter);
    for (const place of places) {
      const locked = this.#places.get(place);
      if (!locked) continue;
      for (const [owner, held] of locked.held) {
        if (held.session !== session) continue;
        locked.held.delete(owner);
        locked.writes -= writesAmong(held.locks);
      }
      this.#sweep(place);
    }
    holder.places.clear();
    holder.count = 0;
    return places;
  }

  #countOf(session: number): number {
    return this.#holders.get(session)?.count ?? 0;
  }

  #holder(session: number): Holder {
    let holder = this.#holders.get(session);
    if (!holder) {
      holder = { session, places: new Set(), waits: new Map(), count: 0 };
      this.#holders.set(session, holder);
    }
    return holder;
  }

  #locked(place: string): Locked {
    let locked = this.#places.get(place);
    if (!locked) {
      locked = { held: new Map(), writes: 0, waiting: new Set() };
      this.#places.set(place, locked);
    }
    return locked;
  }

  #sweep(place: string): void {
    const locked = this.#places.get(place);
    if (locked?.held.size === 0 && locked.waiting.size === 0) this.#places.delete(place);
  }
}

function placeOf({ ino, kind }: Lock): string {
  return `${ino}/${kind}`;
}

function ownerOf(session: number, { ownerLow, ownerHigh }: Lock): string {
  return `${session}/${ownerHigh}/${ownerLow}`;
}

function writesAmong(locks: readonly Lock[]): number {
  let writes = 0;
  for (const { type } of locks) if (type === LockType.LOCK_WRITE) writes++;
  return writes;
}

/** A session locks any number of files in its time. */
function forgetIfNothing({ session, places }: Holder, { held, waiting }: Locked, place: string): void {
  for (const waiter of waiting) if (waiter.session === session) return;
  for (const other of held.values()) if (other.session === session) return;
  places.delete(place);
}

function conflict(locked: Locked, owner: string, lock: Lock): Lock | undefined {
  for (const [, held] of inTheWayOf(locked, owner, lock)) return held;
  return undefined;
}

/** Owners of what is in the way. */
function conflicts(locked: Locked, owner: string, lock: Lock): string[] {
  return Array.from(inTheWayOf(locked, owner, lock), ([other]) => other);
}

/** The locks of others, with their owners, that this one collides with. */
function* inTheWayOf({ held, writes }: Locked, owner: string, lock: Lock): Generator<[string, Lock]> {
  if (lock.type !== LockType.LOCK_WRITE && writes === 0) return;
  for (const [other, { locks }] of held) {
    if (other === owner) continue;
    for (const each of locks) if (collide(each, lock)) yield [other, each];
  }
}

function collide(held: Lock, lock: Lock): boolean {
  if (held.start > lock.end || lock.start > held.end) return false;
  return held.type === LockType.LOCK_WRITE || lock.type === LockType.LOCK_WRITE;
}

/** What is left of `lock` outside the range of `cut`. */
function outside(lock: Lock, cut: Lock): Lock[] {
  if (lock.start > cut.end || cut.start > lock.end) return [lock];
  const left: Lock[] = [];
  if (lock.start < cut.start) left.push({ ...lock, end: cut.start - 1 });
  if (lock.end > cut.end) left.push({ ...lock, start: cut.end + 1 });
  return left;
}

/** Neighbouring ranges of one type as one; they do not overlap. */
function merged(locks: Lock[]): Lock[] {
  const result: Lock[] = [];
  for (const lock of locks.sort((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    if (last && last.type === lock.type && last.pid === lock.pid && last.end + 1 === lock.start) {
      result[result.length - 1] = { ...last, end: lock.end };
    } else result.push(lock);
  }
  return result;
}
