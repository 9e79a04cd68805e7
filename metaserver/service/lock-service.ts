import { type ErrorName, HoldfastError } from '../../proto/errors.js';
import { type Lock, LockKind, LockOperation, type LockRequest, LockType } from '../../proto/gen/meta.js';
import { LockCore } from '../locks/lock-core.js';

/** Requests that wait until every session has told what it holds; a further one is refused, and comes again. */
export const LOCK_REQUESTS_WAITING_MAX = 65_536;

/** Called once: with an error, or with what keeps the caller from the lock that it tested. */
export type LockAnswer = (error: ErrorName | undefined, conflict: Lock | undefined) => void;

/** A request that came before every session had said what it holds. */
interface Held {
  session: number;
  request: LockRequest;
  answer: LockAnswer;
}

/**
 * The sessions' locks at the leader. They are volatile and announced again like opens; until every session has said
 * what it holds, or is over, requests wait.
 */
export class LockService {
  readonly #core = new LockCore();
  #open = false;
  #waiting: Held[] = [];

  end(): void {
    this.#open = false;
    this.#waiting = [];
    this.#core.clear();
  }

  /** Whether somebody waits for that. */
  get heldUp(): boolean {
    return this.#waiting.length > 0;
  }

  /** Every session has announced what it holds. */
  open(): void {
    this.#open = true;
    for (const { session, request, answer } of this.#waiting.splice(0))
      this.request(session, request, answer);
  }

  announced(session: number, locks: readonly Lock[]): void {
    this.#core.announce(
      session,
      locks.filter((lock) => isSound(lock) && lock.type !== LockType.LOCK_UNLOCK),
    );
  }

  over(session: number): void {
    // A lock that it got later nobody would give up.
    this.#waiting = this.#waiting.filter((held) => held.session !== session);
    this.#core.remove(session);
  }

  /** @throws HoldfastError EINVAL for what is no lock; OVERLOADED when too many wait */
  request(session: number, request: LockRequest, answer: LockAnswer): void {
    const { lock, operation, wait } = request;
    if (!lock || !isSound(lock)) throw new HoldfastError('EINVAL', 'not a lock');
    if (!this.#open) {
      if (this.#waiting.length >= LOCK_REQUESTS_WAITING_MAX) throw new HoldfastError('OVERLOADED');
      this.#waiting.push({ session, request, answer });
      return;
    }
    if (operation === LockOperation.LOCK_TEST) {
      answer(undefined, this.#core.test(session, lock));
      return;
    }
    const waits = operation === LockOperation.LOCK_SET_WAIT ? wait : undefined;
    this.#core.set(session, lock, waits, (error) => answer(error, undefined));
  }

  cancel(session: number, wait: number): void {
    const isMeant = (held: Held): boolean =>
      held.session === session &&
      held.request.operation === LockOperation.LOCK_SET_WAIT &&
      held.request.wait === wait;
    const meant = this.#waiting.filter(isMeant);
    this.#waiting = this.#waiting.filter((held) => !isMeant(held));
    for (const { answer } of meant) answer('EINTR', undefined);
    this.#core.cancel(session, wait);
  }
}

const KINDS: ReadonlySet<LockKind> = new Set([
  LockKind.LOCK_POSIX,
  LockKind.LOCK_FLOCK,
  LockKind.LOCK_APPEND,
]);

function isSound({ ino, kind, type, start, end }: Lock): boolean {
  const { LOCK_READ, LOCK_WRITE, LOCK_UNLOCK } = LockType;
  return KINDS.has(kind) && [LOCK_READ, LOCK_WRITE, LOCK_UNLOCK].includes(type) && ino > 0 && start <= end;
}
