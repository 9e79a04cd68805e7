import type { Logger } from '../../common/logger.js';
import { toHoldfastError } from '../../proto/errors.js';
import { LockKind, LockType } from '../../proto/gen/meta.js';
import { type LockClient, wholeFile } from '../meta/locks.js';
import type { Interrupt } from '../wait.js';

/**
 * O_APPEND to files that several mounts write: each append is made in a turn of its own, which the leader gives. Turns
 * are locks of a kind of their own: kept over a change of the leader, gone with a session that is over and fenced.
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
   * @param append finds the end of the file and makes what is written there visible to others
   * @throws HoldfastError EINTR while waiting, or what `append` throws
   */
  async during<T>(ino: number, signal: Interrupt, append: () => Promise<T>): Promise<T> {
    const turn = wholeFile(ino, LockKind.LOCK_APPEND, this.#next++);
    await this.#locks.set({ ...turn, type: LockType.LOCK_WRITE }, true, signal);
    try {
      return await append();
    } finally {
      await this.#locks.set(turn, false).catch((error: unknown) => {
        // Only the end of the mount stops it, and the session's locks with it.
        this.#log.warn({ ino, error: toHoldfastError(error).message }, 'the turn to append was not given up');
      });
    }
  }
}
