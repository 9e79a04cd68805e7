import type { Purge } from '../../proto/gen/cluster.js';
import { type ClientCall, orderedCall } from './calls.js';

/** Purges in progress; the metaserver repeats what is dropped. */
export const PURGES_MAX = 4096;

/** The metaserver's orders to delete or truncate, as requests to the groups: each once at a time, and not too many. */
export class Purges {
  readonly #running = new Set<string>();

  /** @returns the request, or undefined when it is under way already, or too many are */
  begin(purge: Purge, now: number, done: () => void): ClientCall | undefined {
    const name = `${purge.pg}/${purge.ino}/${purge.truncateSeq}`;
    if (this.#running.has(name) || this.#running.size >= PURGES_MAX) return undefined;
    this.#running.add(name);
    const { ino, truncateSeq, truncateFrom, chunkSize } = purge;
    const target = { ino, from: truncateFrom, truncateSeq, chunkSize };
    return orderedCall(truncateSeq > 0 ? 'truncate' : 'delete', target, now, (error) => {
      this.#running.delete(name);
      if (!error) done();
    });
  }
}
