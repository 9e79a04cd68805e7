import { type Clock, delay } from '../../../common/clock.js';
import { LruMap } from '../../../common/lru-map.js';
import type { Call } from './call.js';
import { Opcode } from './protocol.js';

/** Threads whose last answer is remembered. */
export const THREADS_MAX = 1_024;
/** An answer counts as taken in after so long, whatever its thread does: one that gets no processor any more is not waited for. */
export const TAKEN_IN_MAX_MS = 1_000;
/** The same where the thread cannot be seen: of another PID namespace, or of the kernel. */
export const UNSEEN_TAKEN_IN_MAX_MS = 20;
/** A thread that has run for so long since it was first looked at is behind its answer. */
export const RUN_FOR_NS = 2_000_000;
/** How often the threads are looked at. */
const LOOK_INTERVAL_MS = 1;

/** In the place of a thread: see Call.pid. */
const UNKNOWN_THREAD = 0;
/** In the place of inodes: a listing tells of many. */
const ANY_INODE = -1;

/** What is seen of a thread: it has ended; it sleeps, and is on no processor's queue; or how long it has run so far. */
export type ThreadState = 'gone' | 'asleep' | { ranNs: number };

interface Answered {
  at: number;
  /** Whose attributes or names it tells; none: the thread is behind it. */
  inos: readonly number[];
  /** What the thread had run when it was first looked at. */
  ranNs: number | undefined;
}

const NO_INODES: readonly number[] = [];

/** A name with its inode. */
type WithEntry = {
  readonly attr: { readonly ino: number };
  readonly entryTtlMs: number;
  readonly attrTtlMs: number;
};

/**
 * Answers that the kernel may not have taken in yet. It does so in the thread that asked, when that runs again, and what it
 * does then is not held against an invalidation that came in between:
 * - a new inode (LOOKUP, READDIRPLUS) is made with the attributes of the answer, and could not be found by the invalidation;
 * - what CREATE, MKDIR, MKNOD, SYMLINK and LINK say, and before Linux 6.16 SETATTR, is believed without a look at the version
 *   of the attributes, which an invalidation moves on;
 * - a name that was only confirmed (LOOKUP of a dentry that is there) gets its new time without any lock, also when it
 *   was expired meanwhile; and one of a READDIRPLUS belongs to the epoch of the moment in which it is taken in.
 *
 * So whoever invalidates waits for the threads that were told of the inode first. A thread is behind its answer when it
 * makes its next request, sleeps elsewhere, has ended, or has run for much longer than that takes. It needs nothing but a
 * processor for it, so nobody waits for a request here. Answers to GETATTR and STATX are not among these: they are held
 * against the version.
 */
export class TakenIn {
  readonly #clock: Clock;
  readonly #look: (thread: number) => ThreadState | undefined;
  readonly #answers = new LruMap<number, Answered>();
  /** Of threads that cannot be told apart: the last answer, for all inodes. */
  #unknownAt = Number.NEGATIVE_INFINITY;

  /** @param look undefined: the thread cannot be seen from here */
  constructor(clock: Clock, look: (thread: number) => ThreadState | undefined) {
    this.#clock = clock;
    this.#look = look;
  }

  /** A request has come that waits for an answer: its thread is behind the last one. */
  asked({ pid }: Pick<Call, 'pid'>): void {
    const answered = this.#answers.peek(pid);
    // It stays in its place: a Map of which a key is deleted and set for each request is built anew all the time.
    if (answered) answered.inos = NO_INODES;
  }

  /** To be called with each answer, before it is given. */
  answering(call: Call, result: unknown): void {
    const inos = toldOf(call, result);
    if (!inos) return;
    const at = this.#clock.now();
    if (call.pid === UNKNOWN_THREAD) {
      this.#unknownAt = at;
      return;
    }
    const answered = this.#answers.get(call.pid);
    if (answered) {
      answered.at = at;
      answered.inos = inos;
      answered.ranNs = undefined;
      return;
    }
    this.#answers.set(call.pid, { at, inos, ranNs: undefined });
    if (this.#answers.size > THREADS_MAX) this.#makeRoom();
  }

  /** Who is not behind its answer is forgotten only where there are too many of those alone. */
  #makeRoom(): void {
    for (const [thread, { inos }] of [...this.#answers]) if (inos === NO_INODES) this.#answers.delete(thread);
    if (this.#answers.size > THREADS_MAX) this.#answers.shift();
  }

  /** Resolves when the kernel believes what it was told of an inode and its names so far. @returns undefined: it does */
  of(ino: number): Promise<void> | undefined {
    return this.#isWaitedFor(ino, this.#clock.now()) ? this.#wait(ino, this.#clock.now()) : undefined;
  }

  /** Whether the kernel may not believe all of what a listing has told it. */
  hasListing(): boolean {
    return this.#isWaitedFor(ANY_INODE, this.#clock.now());
  }

  /** @param since what is answered from then on says nothing that is to be invalidated */
  async #wait(ino: number, since: number): Promise<void> {
    do await delay(this.#clock, LOOK_INTERVAL_MS);
    while (this.#isWaitedFor(ino, since));
  }

  #isWaitedFor(ino: number, since: number): boolean {
    const now = this.#clock.now();
    let waited = now - this.#unknownAt < UNSEEN_TAKEN_IN_MAX_MS && this.#unknownAt <= since;
    for (const [thread, answered] of [...this.#answers]) {
      const { at, inos } = answered;
      if (now - at >= TAKEN_IN_MAX_MS) this.#answers.delete(thread);
      else if (at <= since && (inos.includes(ino) || inos.includes(ANY_INODE))) {
        if (this.#isBehind(thread, answered, now)) this.#answers.delete(thread);
        else waited = true;
      }
    }
    return waited;
  }

  #isBehind(thread: number, answered: Answered, now: number): boolean {
    const state = this.#look(thread);
    if (state === undefined) return now - answered.at >= UNSEEN_TAKEN_IN_MAX_MS;
    if (typeof state === 'string') return true;
    answered.ranNs ??= state.ranNs;
    return state.ranNs - answered.ranNs >= RUN_FOR_NS;
  }
}

/** @returns undefined: nothing that the kernel may believe, or that is not held against an invalidation */
function toldOf({ opcode, ino }: Call, result: unknown): number[] | undefined {
  switch (opcode) {
    case Opcode.LOOKUP:
    case Opcode.SYMLINK:
    case Opcode.MKNOD:
    case Opcode.MKDIR:
    case Opcode.LINK:
      return ofEntry(ino, result as WithEntry);
    case Opcode.CREATE:
    case Opcode.TMPFILE:
      return ofEntry(ino, (result as { entry: WithEntry }).entry);
    case Opcode.SETATTR:
      return (result as { ttlMs: number }).ttlMs > 0 ? [ino] : undefined;
    case Opcode.READDIRPLUS:
      return [ANY_INODE];
  }
  return undefined;
}

function ofEntry(directory: number, { attr, entryTtlMs, attrTtlMs }: WithEntry): number[] | undefined {
  return entryTtlMs > 0 || attrTtlMs > 0 ? [directory, attr.ino] : undefined;
}
