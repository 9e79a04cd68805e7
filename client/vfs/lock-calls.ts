import type { Logger } from '../../common/logger.js';
import { toHoldfastError } from '../../proto/errors.js';
import { type Lock, LockKind, LockType } from '../../proto/gen/meta.js';
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
 */
export class LockCalls {
  readonly #locks: LockClient;
  readonly #log: Logger;
  /** Owners that have locked through a handle and are not known to be processes. */
  readonly #owners = new Map<number, Set<bigint>>();

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
    if (lock.type === 'unlock' && !this.#locks.holds(ino, kind, owner)) return;
    if (lock.type !== 'unlock' && !flock) {
      const owners = this.#owners.get(handle);
      if (owners) owners.add(owner);
      else this.#owners.set(handle, new Set([owner]));
    }
    await this.#locks.set(toLock(ino, kind, owner, lock), wait && lock.type !== 'unlock', caller.signal);
  }

  /** A process has closed the file: the owner is a process. */
  async flush(ino: number, handle: number, owner: bigint): Promise<void> {
    this.#owners.get(handle)?.delete(owner);
    await this.#giveUp(ino, LockKind.LOCK_POSIX, owner);
  }

  /** The last reference to the handle is gone. @param flockOwner the handle's, when it was locked by flock */
  async release(ino: number, handle: number, flockOwner: bigint | undefined): Promise<void> {
    const owners = this.#owners.get(handle);
    this.#owners.delete(handle);
    if (flockOwner !== undefined) await this.#giveUp(ino, LockKind.LOCK_FLOCK, flockOwner);
    for (const owner of owners ?? []) await this.#giveUp(ino, LockKind.LOCK_POSIX, owner);
  }

  async #giveUp(ino: number, kind: LockKind, owner: bigint): Promise<void> {
    if (!this.#locks.holds(ino, kind, owner)) return;
    try {
      await this.#locks.set(wholeFile(ino, kind, owner), false);
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
