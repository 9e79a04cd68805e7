import type { Purge } from '../../proto/gen/cluster.js';
import { type ClientCall, DEFAULT_DEADLINE_MS } from './calls.js';

/** Purges in progress; the metaserver repeats what is dropped. */
export const PURGES_MAX = 4096;

const EMPTY = Buffer.alloc(0);

/** The metaserver's orders to delete or truncate, as requests to the groups: each once at a time, and not too many. */
export class Purges {
  readonly #running = new Set<string>();

  /** @returns the request, or undefined when it is under way already, or too many are */
  begin(purge: Purge, now: number, done: () => void): ClientCall | undefined {
    const name = `${purge.pg}/${purge.ino}/${purge.truncateSeq}`;
    if (this.#running.has(name) || this.#running.size >= PURGES_MAX) return undefined;
    this.#running.add(name);
    return {
      kind: purge.truncateSeq > 0 ? 'truncate' : 'delete',
      epoch: 0,
      ino: purge.ino,
      chunk: 0,
      offset: purge.truncateFrom,
      length: 0,
      truncateSeq: purge.truncateSeq,
      chunkSize: purge.chunkSize,
      payload: EMPTY,
      payloadCrc: 0,
      // The metaserver forgets it then: a power cut must not bring the data back.
      sync: true,
      deadline: now + DEFAULT_DEADLINE_MS,
      patient: false,
      result: undefined,
      answer: (error) => {
        this.#running.delete(name);
        if (!error) done();
      },
    };
  }
}
