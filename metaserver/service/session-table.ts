import { assert } from '../../common/assert.js';
import { Counts } from '../../common/counts.js';
import type { SessionRecord } from './ports.js';

/** Sessions that a leader keeps; a further one is refused with OVERLOADED. */
export const SESSIONS_MAX = 4096;
/** Inodes that one session may hold open. */
export const OPEN_INODES_PER_SESSION_MAX = 1_048_576;

/** What the leader knows of one session. `S` is the stream that serves it. */
export interface SessionEntry<S> {
  readonly record: SessionRecord;
  stream: S | undefined;
  /** Clock time of the last message, or of the begin of the leadership. */
  heardAt: number;
  /** Told this leader which inodes it holds open: before that, any orphan may be open in it. */
  announced: boolean;
  readonly open: Set<number>;
  /** Those of `open` that it may write to. */
  readonly writing: Set<number>;
}

/**
 * The leader's volatile view of the sessions: who is connected, who was heard when, who holds which inode open. The
 * sessions themselves are in the state machine; opens are announced again to each new leader.
 * Invariant: `#openers` counts, for each inode, the sessions whose `open` holds it.
 */
export class SessionTable<S> {
  readonly #sessions = new Map<number, SessionEntry<S>>();
  readonly #openers = new Counts();
  /** Likewise of `writing`. */
  readonly #writers = new Counts();
  readonly #onReleased: (inos: readonly number[]) => void;
  #unannounced = 0;

  /** @param onReleased inodes that no session holds open any more */
  constructor(onReleased: (inos: readonly number[]) => void) {
    this.#onReleased = onReleased;
  }

  /** Forgets everything and takes over the sessions of the state machine: each has a full time-out to reconnect. */
  reset(records: readonly SessionRecord[], now: number): void {
    this.#sessions.clear();
    this.#openers.clear();
    this.#writers.clear();
    this.#unannounced = 0;
    for (const record of records) this.add(record, now);
  }

  /** Adds a session that was just opened, or returns the present entry. */
  add(record: SessionRecord, now: number): SessionEntry<S> {
    const present = this.#sessions.get(record.id);
    if (present) return present;
    const entry: SessionEntry<S> = {
      record,
      stream: undefined,
      heardAt: now,
      announced: false,
      open: new Set(),
      writing: new Set(),
    };
    this.#sessions.set(record.id, entry);
    this.#unannounced++;
    return entry;
  }

  get(id: number): SessionEntry<S> | undefined {
    return this.#sessions.get(id);
  }

  get size(): number {
    return this.#sessions.size;
  }

  entries(): Iterable<SessionEntry<S>> {
    return this.#sessions.values();
  }

  /** Whether every session has said what it holds open. */
  get allAnnounced(): boolean {
    return this.#unannounced === 0;
  }

  isOpen(ino: number): boolean {
    return this.#openers.has(ino);
  }

  /** Whether a session other than `entry` has the inode open. */
  isOpenElsewhere(entry: SessionEntry<S> | undefined, ino: number): boolean {
    return this.#openers.get(ino) > (entry?.open.has(ino) ? 1 : 0);
  }

  /** Whether a session writes the inode and another one has it open: nobody can believe anything about it. */
  isContested(ino: number): boolean {
    return this.#writers.has(ino) && this.#openers.get(ino) > 1;
  }

  /** The session, which has the inode open, may write to it. */
  write(entry: SessionEntry<S>, ino: number): void {
    if (entry.writing.has(ino) || !entry.open.has(ino)) return;
    entry.writing.add(ino);
    this.#writers.up(ino);
  }

  /** Registers the session as an opener. @returns false when it holds too many inodes open */
  open(entry: SessionEntry<S>, ino: number): boolean {
    if (entry.open.has(ino)) return true;
    if (entry.open.size >= OPEN_INODES_PER_SESSION_MAX) return false;
    entry.open.add(ino);
    this.#openers.up(ino);
    return true;
  }

  close(entry: SessionEntry<S>, inos: readonly number[]): void {
    const released: number[] = [];
    for (const ino of inos) {
      if (!entry.open.delete(ino)) continue;
      assert(this.#openers.has(ino), 'an open inode is counted');
      if (entry.writing.delete(ino)) {
        assert(this.#writers.has(ino), 'an inode that is written is counted');
        this.#writers.down(ino);
      }
      if (this.#openers.down(ino)) released.push(ino);
    }
    if (released.length > 0) this.#onReleased(released);
  }

  /** The session says what it holds open: replaces what was known. @returns false when that is too much */
  announce(entry: SessionEntry<S>, inos: readonly number[], writing: readonly number[] = []): boolean {
    if (inos.length > OPEN_INODES_PER_SESSION_MAX) return false;
    const held = new Set(inos);
    this.close(
      entry,
      [...entry.open].filter((ino) => !held.has(ino)),
    );
    for (const ino of held) this.open(entry, ino);
    for (const ino of writing) this.write(entry, ino);
    if (!entry.announced) {
      entry.announced = true;
      this.#unannounced--;
      if (this.#unannounced === 0) this.#onReleased([]);
    }
    return true;
  }

  /** The session is over: closed or expired. */
  remove(id: number): SessionEntry<S> | undefined {
    const entry = this.#sessions.get(id);
    if (!entry) return undefined;
    this.announce(entry, []);
    this.#sessions.delete(id);
    return entry;
  }

  /** Sessions that were silent for longer than `timeoutMs`. */
  silent(now: number, timeoutMs: number): SessionEntry<S>[] {
    return [...this.#sessions.values()].filter((entry) => now - entry.heardAt > timeoutMs);
  }

  /** Counts `ms` as heard for everybody: this process was paused and heard nobody. */
  forgive(ms: number): void {
    for (const entry of this.#sessions.values()) entry.heardAt += ms;
  }
}
