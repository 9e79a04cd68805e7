import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import { type Lock, LockKind, LockType } from '../../proto/gen/meta.js';
import type { Answer } from '../answer.js';
import type { Caller, FileLock } from '../fuse/binding.js';
import { type LockClient, ownerFields, wholeFile } from '../meta/locks.js';

const TYPES = {
  read: LockType.LOCK_READ,
  write: LockType.LOCK_WRITE,
  unlock: LockType.LOCK_UNLOCK,
} as const;

/**
 * flock(2) and fcntl(2) locks. The kernel keeps none of them and tells when a file is closed: a process gives up its
 * record locks with any close of the file (flush), an open file those of its own with the last one (release).
 *
 * A lock that went with the mount's session may be another program's by now. Whoever locked through a handle cannot read
 * and write through it any more until the lock is given up: like a lost lock of NFSv4 on Linux.
 */
export class LockCalls {
  readonly #locks: LockClient;
  readonly #log: Logger;
  /** Owners that have locked through a handle and are not known to be processes. */
  readonly #owners = new Map<number, Set<bigint>>();
  /** The owner of each handle that was locked by flock. */
  readonly #flockOwners = new Map<number, bigint>();

  constructor(locks: LockClient, log: Logger) {
    this.#locks = locks;
    this.#log = log;
  }

  async test(caller: Caller, ino: number, owner: bigint, lock: FileLock): Promise<FileLock> {
    const wanted = toLock(ino, LockKind.LOCK_POSIX, owner, lock);
    const conflict = await this.#locks.test(wanted, caller.signal);
    if (!conflict) return { ...lock, type: 'unlock' };
    const { start, end, pid } = conflict;
    return { start, end, pid, type: conflict.type === LockType.LOCK_WRITE ? 'write' : 'read' };
  }

  /** @throws HoldfastError EAGAIN, EDEADLK, ENOLCK, EINTR */
  async set(
    caller: Caller,
    ino: number,
    handle: number,
    owner: bigint,
    lock: FileLock,
    { wait, flock }: { wait: boolean; flock: boolean },
  ): Promise<void> {
    const kind = flock ? LockKind.LOCK_FLOCK : LockKind.LOCK_POSIX;
    const wanted = toLock(ino, kind, owner, lock);
    if (lock.type === 'unlock' && !this.#locks.holds(ino, kind, owner)) {
      this.#locks.forgetLost(wanted);
      return;
    }
    if (lock.type !== 'unlock') this.#remember(handle, owner, flock);
    await this.#locks.set(wanted, wait && lock.type !== 'unlock', caller.signal);
  }

  #remember(handle: number, owner: bigint, flock: boolean): void {
    const owners = this.#owners.get(handle);
    if (flock) this.#flockOwners.set(handle, owner);
    else if (owners) owners.add(owner);
    else this.#owners.set(handle, new Set([owner]));
  }

  /** @throws HoldfastError EIO when a lock that was set through the handle is lost */
  refuseLost(ino: number, handle: number): void {
    const flockOwner = this.#flockOwners.get(handle);
    let lost = flockOwner !== undefined && this.#locks.hasLost(ino, LockKind.LOCK_FLOCK, flockOwner);
    for (const owner of this.#owners.get(handle) ?? [])
      lost ||= this.#locks.hasLost(ino, LockKind.LOCK_POSIX, owner);
    if (lost) throw new HoldfastError('EIO', 'the lock went with the session');
  }

  /** A process has closed the file: the owner is a process. */
  flush(ino: number, handle: number, owner: bigint): Answer<void> {
    this.#owners.get(handle)?.delete(owner);
    return this.#giveUp(ino, LockKind.LOCK_POSIX, owner);
  }

  /** The last reference to the handle is gone. @param flockOwner the handle's, when it was locked by flock */
  release(ino: number, handle: number, flockOwner: bigint | undefined): Answer<void> {
    const owners = this.#owners.get(handle);
    this.#owners.delete(handle);
    this.#flockOwners.delete(handle);
    if (flockOwner !== undefined || owners) return this.#released(ino, flockOwner, owners);
  }

  async #released(
    ino: number,
    flockOwner: bigint | undefined,
    owners: ReadonlySet<bigint> | undefined,
  ): Promise<void> {
    if (flockOwner !== undefined) await this.#giveUp(ino, LockKind.LOCK_FLOCK, flockOwner);
    for (const owner of owners ?? []) await this.#giveUp(ino, LockKind.LOCK_POSIX, owner);
  }

  #giveUp(ino: number, kind: LockKind, owner: bigint): Answer<void> {
    if (!this.#locks.any) return;
    const all = wholeFile(ino, kind, owner);
    this.#locks.forgetLost(all);
    if (this.#locks.holds(ino, kind, owner)) return this.#unlock(ino, all);
  }

  async #unlock(ino: number, all: Lock): Promise<void> {
    try {
      await this.#locks.set(all, false);
    } catch (error) {
      // Only the end of the mount stops it, and the session's locks with it.
      this.#log.warn({ ino, error: toHoldfastError(error).message }, 'locks not given up');
    }
  }
}

function toLock(ino: number, kind: LockKind, owner: bigint, { start, end, type, pid }: FileLock): Lock {
  const last = Math.min(end, Number.MAX_SAFE_INTEGER);
  return { ino, kind, type: TYPES[type], ...ownerFields(owner), start, end: last, pid };
}
