/**
 * Changes of the contents and sizes of files that are made without a turn (see AppendTurns), for nobody else has the file. They ask
 * the servers themselves, and may outlast the lease that allows this: whoever is let in next makes such changes in turns, and
 * would find the end of the file, or write there, before they are made. So the lease goes back when they have ended.
 *
 * None of them waits for such a change elsewhere: of the file nobody else has a lease, and of what a copy is made from one to look
 * at it at most, for it is open here.
 */
export class OwnedChanges {
  /** For each inode when all that was begun so far has ended. */
  readonly #running = new Map<number, Promise<void>>();

  /** Counts a change as begun, until it ends. */
  during<T>(ino: number, change: Promise<T>): Promise<T> {
    const all = Promise.allSettled([this.#running.get(ino), change]).then(() => {
      if (this.#running.get(ino) === all) this.#running.delete(ino);
    });
    this.#running.set(ino, all);
    return change;
  }

  /** Resolves when those that were begun so far have ended; undefined: there are none. */
  ended(ino: number): Promise<void> | undefined {
    return this.#running.get(ino);
  }
}
