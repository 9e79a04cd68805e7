import type { Logger } from '../../common/logger.js';
import { toHoldfastError } from '../../proto/errors.js';
import { type Lock, LockKind, LockType } from '../../proto/gen/meta.js';
import { type LockClient, wholeFile } from '../meta/locks.js';
import { type Interrupt, interruptible } from '../wait.js';

/**
 * Changes of the size of files that several mounts write, O_APPEND among them: each is made in a turn of its own, which the
 * leader gives. Turns are locks of a kind of their own: kept over a change of the leader, gone with a session that is over and fenced.
 */
export class AppendTurns {
  readonly #locks: LockClient;
  readonly #log: Logger;
  #next = 1n;

  constructor(locks: LockClient, log: Logger) {
    this.#locks = locks;
    this.#log = log;
  }

  /**
   * @param change finds the end of the file and makes what is written there visible to others
   * @throws HoldfastError EINTR, or what `change` throws; interrupted, the turn lasts until `change` has ended
   */
  async during<T>(ino: number, signal: Interrupt, change: () => Promise<T>): Promise<T> {
    const turn = wholeFile(ino, LockKind.LOCK_APPEND, this.#next++);
    await this.#locks.set({ ...turn, type: LockType.LOCK_WRITE }, true, signal);
    return interruptible(this.#taken(turn, change), signal);
  }

  async #taken<T>(turn: Lock, change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } finally {
      await this.#locks.set(turn, false).catch((error: unknown) => {
        // Only the end of the mount stops it, and the session's locks with it.
        this.#log.warn(
          { ino: turn.ino, error: toHoldfastError(error).message },
          'a turn to change the size of a file was not given up',
        );
      });
    }
  }
}
