import { backOffMs } from '../../common/backoff.js';
import { type Clock, delay } from '../../common/clock.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { type Lock, LockKind, LockOperation, LockType, type ServerEnvelope } from '../../proto/gen/meta.js';
import { type Interrupt, throwIfInterrupted } from '../wait.js';
import type { ClientBody } from './dialer.js';
import { RETRY_MAX_MS, RETRY_MIN_MS } from './request-ledger.js';

export interface LockClientDeps {
  clock: Clock;
  /** One attempt. @throws HoldfastError, a retriable one when it is worth another attempt */
  call(body: ClientBody): Promise<ServerEnvelope['body']>;
  push(body: ClientBody): void;
}

/** By inode, kind and owner. */
type LockRanges = Map<string, Lock[]>;

interface Answer {
  conflict: Lock | undefined;
  session: number;
}

/**
 * This mount's locks at the leader. Setting a lock may be repeated without harm, so a request is repeated until it is
 * answered; what is held is announced again to each new leader. What a session held when it ended is lost: until its owner
 * gives it up, it may believe that it has it.
 */
export class LockClient {
  readonly #deps: LockClientDeps;
  readonly #held: LockRanges = new Map();
  /** Of sessions that are over. */
  readonly #lost: LockRanges = new Map();
  #waits = 0;
  #session = 0;

  constructor(deps: LockClientDeps) {
    this.#deps = deps;
  }

  /** For Hello. */
  announce(): Lock[] {
    return [...this.#held.values()].flat();
  }

  /** Its locks went with it. A turn to change a size ends with that change, which is told by other means. */
  sessionLost(): void {
    for (const lock of this.announce()) if (lock.kind !== LockKind.LOCK_APPEND) put(this.#lost, lock);
    this.#held.clear();
    this.#session++;
  }

  /** Whether an owner holds anything there. */
  holds(ino: number, kind: LockKind, owner: bigint): boolean {
    return has(this.#held, ino, kind, owner);
  }

  /** Whether any lock is held, or lost. */
  get any(): boolean {
    return this.#held.size > 0 || this.#lost.size > 0;
  }

  /** Whether an owner has lost a lock there that it has not given up since: another one may have had it meanwhile. */
  hasLost(ino: number, kind: LockKind, owner: bigint): boolean {
    return this.#lost.size > 0 && has(this.#lost, ino, kind, owner);
  }

  /** The owner gives up what it has lost in the range of `unlock`. */
  forgetLost(unlock: Lock): void {
    if (this.#lost.size > 0) put(this.#lost, unlock);
  }

  /** @returns a lock that stands in the way; undefined: it could be had. @throws HoldfastError EINTR */
  async test(lock: Lock, signal?: Interrupt): Promise<Lock | undefined> {
    const { conflict } = await this.#repeat(signal, () => request(lock, LockOperation.LOCK_TEST, 0));
    return conflict;
  }

  /** @throws HoldfastError EAGAIN, EDEADLK, ENOLCK, EINTR */
  async set(lock: Lock, wait: boolean, signal?: Interrupt): Promise<void> {
    throwIfInterrupted(signal);
    if (lock.type === LockType.LOCK_UNLOCK) this.forgetLost(lock);
    let session: number;
    const id = wait ? ++this.#waits : 0;
    const interrupt = (): void => this.#deps.push({ $case: 'cancelLock', value: { wait: id } });
    if (wait) signal?.addEventListener('abort', interrupt, { once: true });
    // Interrupted, it is not waited for again, but its answer is: the lock may have been granted meanwhile.
    const waits = (): boolean => wait && signal?.aborted !== true;
    const operation = (): LockOperation => (waits() ? LockOperation.LOCK_SET_WAIT : LockOperation.LOCK_SET);
    try {
      ({ session } = await this.#repeat(wait ? undefined : signal, () => request(lock, operation(), id)));
    } catch (error) {
      const failure = toHoldfastError(error);
      if (wait && signal?.aborted && failure.errorName === 'EAGAIN') throw new HoldfastError('EINTR');
      throw failure;
    } finally {
      signal?.removeEventListener('abort', interrupt);
    }
    // It may have been asked for in a session that is over by now; what counts is the one that it was granted in.
    if (session === this.#session) put(this.#held, lock);
    else if (lock.type !== LockType.LOCK_UNLOCK) put(this.#lost, lock);
  }

  /** @returns what stands in the way, and the session of the attempt that was answered */
  async #repeat(signal: Interrupt | undefined, make: () => ClientBody): Promise<Answer> {
    let failures = 0;
    for (;;) {
      throwIfInterrupted(signal);
      const session = this.#session;
      try {
        const body = await this.#deps.call(make());
        if (body?.$case !== 'lock') throw new HoldfastError('PROTOCOL', `unexpected answer ${body?.$case}`);
        return { conflict: body.value.conflict, session };
      } catch (cause) {
        const error = toHoldfastError(cause);
        // A session that has expired is followed by another one.
        if (!error.retriable && error.errorName !== 'SESSION_EXPIRED') throw error;
        if (error.errorName === 'DEADLINE_EXCEEDED') continue; // of one attempt: the wait goes on
      }
      await delay(this.#deps.clock, backOffMs(++failures, RETRY_MIN_MS, RETRY_MAX_MS));
    }
  }
}

type Place = Pick<Lock, 'ino' | 'kind' | 'ownerLow' | 'ownerHigh'>;

function keyOf({ ino, kind, ownerLow, ownerHigh }: Place): string {
  return `${ino}/${kind}/${ownerHigh}/${ownerLow}`;
}

function has(locks: LockRanges, ino: number, kind: LockKind, owner: bigint): boolean {
  return locks.has(keyOf({ ino, kind, ...ownerFields(owner) }));
}

/** As fcntl(2): the lock takes the place of what its owner has in the range. */
function put(locks: LockRanges, lock: Lock): void {
  const key = keyOf(lock);
  const kept: Lock[] = [];
  for (const other of locks.get(key) ?? []) {
    if (other.end < lock.start || other.start > lock.end) kept.push(other);
    else {
      if (other.start < lock.start) kept.push({ ...other, end: lock.start - 1 });
      if (other.end > lock.end) kept.push({ ...other, start: lock.end + 1 });
    }
  }
  if (lock.type !== LockType.LOCK_UNLOCK) kept.push(lock);
  if (kept.length > 0) locks.set(key, kept);
  else locks.delete(key);
}

/** A kernel's 64-bit owner as it travels. */
export function ownerFields(owner: bigint): { ownerLow: number; ownerHigh: number } {
  return { ownerLow: Number(owner & 0xffff_ffffn), ownerHigh: Number((owner >> 32n) & 0xffff_ffffn) };
}

function request(lock: Lock, operation: LockOperation, wait: number): ClientBody {
  return { $case: 'lock', value: { lock, operation, wait } };
}

/** The whole file, of one owner. */
export function wholeFile(ino: number, kind: LockKind, owner: bigint): Lock {
  const { LOCK_UNLOCK: type } = LockType;
  return { ino, kind, type, ...ownerFields(owner), start: 0, end: Number.MAX_SAFE_INTEGER, pid: 0 };
}
