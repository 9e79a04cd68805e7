import { type Clock, delay, type Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { type HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { SessionTimes } from '../../proto/types.js';
import type { ClientStream } from './client-stream.js';
import type { LeaseGate } from './lease-gate.js';
import type { LockService } from './lock-service.js';
import type { MetaState, SessionRecord } from './ports.js';
import type { Proposer } from './proposer.js';
import type { SessionTable } from './session-table.js';

/** How often silent sessions are looked for. */
export const SESSION_CHECK_INTERVAL_MS = 1000;
/** A former mount at the place of a new one that has no connection for so long has ended. */
export const FORMER_MOUNT_GRACE_MS = 3000;
/** A check that comes so late means that this process was paused, and heard nobody. */
const SESSION_CHECK_LATE_MS = 3 * SESSION_CHECK_INTERVAL_MS;

export interface SessionExpiryOptions {
  state: Pick<MetaState, 'session' | 'sessions'>;
  proposer: Proposer;
  sessions: SessionTable<ClientStream>;
  leases: LeaseGate;
  times: SessionTimes;
  locks: LockService;
  clock: Clock;
  log: Logger;
  notLeader(): HoldfastError;
  /** Resolves when no chunkserver takes anything any more from sessions that are over. @throws HoldfastError NOT_LEADER */
  shutOut(): Promise<void>;
  /** A session is over and shut out: others may have what it held. */
  onOver(session: number): void;
}

/**
 * Ends the sessions whose clients are gone: those that were silent for their time-out, that leave a recall unanswered for
 * as long, that do not come to a new leader while others wait for them, and those of mounts that were replaced.
 *
 * Invariant: others get what a session held when its client can write nothing any more (the chunkservers shut it out) and
 * believes none of its leases any more (`leaseOverMs` after it was answered last).
 */
export class SessionExpiry {
  readonly #options: SessionExpiryOptions;
  /** Sessions whose ExpireSession is in the log. */
  readonly #expiring = new Set<number>();
  #timer: Timer | undefined;
  #checkedAt = 0;
  /** When this leadership began: nobody was answered by a former leader since then, but for a moment. */
  #beganAt = 0;
  /** Counts the leaderships. */
  #term = 0;

  constructor(options: SessionExpiryOptions) {
    this.#options = options;
  }

  /** @param fencing sessions that a former leader ended, and that are not shut out yet */
  begin(fencing: readonly number[]): void {
    const { clock, times } = this.#options;
    this.#checkedAt = clock.now();
    this.#beganAt = this.#checkedAt;
    // The former leader may have answered them a moment ago.
    for (const id of fencing) void this.#fence(id, this.#beganAt + times.leaseOverMs);
    this.#timer = clock.every(SESSION_CHECK_INTERVAL_MS, () => this.#check(), { weak: true });
  }

  end(): void {
    this.#term++;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#expiring.clear();
  }

  /**
   * A mount at this place has ended if another one is there: its leases need not be waited for until it has been silent
   * for the whole time-out. One that lives after all, detached, has come back to a new leader within the grace.
   */
  expireFormer(place: string, successor: number): void {
    const { clock, state, sessions } = this.#options;
    for (const record of state.sessions()) {
      if (record.place !== place || record.id === successor) continue;
      const former = (): void => {
        if (sessions.get(record.id)?.stream || this.#expiring.has(record.id)) return;
        if (this.#timer && state.session(record.id)) void this.#expire(record.id, 0);
      };
      clock.after(FORMER_MOUNT_GRACE_MS, former, { weak: true });
    }
  }

  #check(): void {
    const { clock, sessions, leases, times } = this.#options;
    const now = clock.now();
    const late = now - this.#checkedAt;
    this.#checkedAt = now;
    if (late > SESSION_CHECK_LATE_MS) {
      sessions.forgive(late);
      leases.forgive(late);
      this.#beganAt += late;
    }
    const silent = sessions.silent(now, times.timeoutMs).map((entry) => entry.record.id);
    for (const id of [...silent, ...this.#absent(now)]) if (!this.#expiring.has(id)) void this.#expire(id, 0);
    // Who answers no recall may have been heard just now, and goes on believing its leases until it hears of its end.
    for (const id of leases.overdue())
      if (!this.#expiring.has(id)) void this.#expire(id, now + times.leaseOverMs);
  }

  /**
   * Sessions that keep others waiting since this leadership began, because they have not said what they hold: what they
   * believed, they do not believe any more.
   */
  #absent(now: number): number[] {
    const { leases, locks, sessions, times } = this.#options;
    if (now - this.#beganAt <= times.leaseOverMs) return [];
    const keepsWaiting = ({ wantsLeases }: SessionRecord): boolean =>
      locks.heldUp || (leases.heldUp && wantsLeases);
    return [...sessions.entries()]
      .filter(({ announced, record }) => !announced && keepsWaiting(record))
      .map(({ record }) => record.id);
  }

  /**
   * A client has left, and what it had begun to write may still arrive. Resolves when the end of its session is in the log;
   * others get what it held when it is shut out.
   * @throws HoldfastError as Proposer.propose(): the session goes on, and is silent
   */
  async left(id: number): Promise<void> {
    const { proposer } = this.#options;
    if (this.#expiring.has(id)) return;
    this.#expiring.add(id);
    let fencing: Promise<void> | undefined;
    try {
      await proposer.propose({ $case: 'expireSession', value: { session: id } });
      fencing = this.#fence(id, 0); // it believes nothing any more
    } finally {
      if (fencing) void fencing.finally(() => this.#expiring.delete(id));
      else this.#expiring.delete(id);
    }
  }

  /**
   * A failed proposal is made again at the next check.
   * @param believesUntil as #fence()
   */
  async #expire(id: number, believesUntil: number): Promise<void> {
    const { proposer, sessions, log } = this.#options;
    this.#expiring.add(id);
    try {
      await proposer.propose({ $case: 'expireSession', value: { session: id } });
      sessions.get(id)?.stream?.expire();
      log.warn({ session: id }, 'session expired');
      await this.#fence(id, believesUntil);
    } catch (error) {
      log.debug({ session: id, error: toHoldfastError(error).errorName }, 'session not expired');
    } finally {
      this.#expiring.delete(id);
    }
  }

  /**
   * The session is over in the state machine: others get what it held once it can write nothing any more. A leadership
   * that ends before is followed by one that begins here again.
   * @param believesUntil when its client certainly believes no lease any more, in the clock's milliseconds
   */
  async #fence(id: number, believesUntil: number): Promise<void> {
    const { proposer, sessions, shutOut, onOver, log, clock, notLeader } = this.#options;
    const term = this.#term;
    try {
      await shutOut();
      const left = believesUntil - clock.now();
      if (left > 0) await delay(clock, left);
      if (term !== this.#term) throw notLeader();
      sessions.remove(id);
      onOver(id);
      await proposer.propose({ $case: 'sessionFenced', value: { session: id } });
      log.info({ session: id }, 'session fenced');
    } catch (error) {
      log.debug({ session: id, error: toHoldfastError(error).errorName }, 'session not fenced');
    }
  }
}
