import { type Deferred, deferred } from '../../common/deferred.js';
import { HoldfastError } from '../../proto/errors.js';
import type { ReadState } from '../raft/types.js';

/** Reads that wait for a round to the followers or for an application; further ones are refused as OVERLOADED. */
export const READS_MAX = 16_384;

interface Group {
  done: Deferred<void>;
  count: number;
}

/**
 * Linearizable reads that could not be answered under the lease. Those of one turn of the event loop share one
 * confirmation by a quorum; then they wait until the confirmed index is applied.
 */
export class Reads {
  #next: Group | undefined;
  #nextContext = 1;
  readonly #asked = new Map<number, Group>();
  /** Confirmed, waiting for `index` to be applied. */
  #confirmed: { index: number; group: Group }[] = [];
  #count = 0;

  /** Registers a read for the next confirmation. */
  add(): Promise<void> {
    if (this.#count >= READS_MAX) {
      return Promise.reject(new HoldfastError('OVERLOADED', `${READS_MAX} reads wait`));
    }
    this.#count++;
    this.#next ??= { done: deferred<void>(), count: 0 };
    this.#next.count++;
    return this.#next.done.promise;
  }

  /** Asks for the confirmation of what was registered. */
  ask(ask: (context: number) => void): void {
    const group = this.#next;
    if (!group) return;
    this.#next = undefined;
    const context = this.#nextContext++;
    this.#asked.set(context, group);
    ask(context);
  }

  /** The core's answers. */
  confirmed(states: readonly ReadState[], lost: () => HoldfastError): void {
    for (const { context, index, failed } of states) {
      const group = this.#asked.get(context);
      if (!group) continue;
      this.#asked.delete(context);
      if (failed) this.#reject(group, lost());
      else this.#confirmed.push({ index, group });
    }
  }

  /** Everything up to `index` is applied. */
  applied(index: number): void {
    if (this.#confirmed.length === 0) return;
    const waiting = this.#confirmed;
    this.#confirmed = [];
    for (const read of waiting) {
      if (read.index > index) this.#confirmed.push(read);
      else {
        this.#count -= read.group.count;
        read.group.done.resolve();
      }
    }
  }

  /** Rejects all. */
  rejectAll(error: HoldfastError): void {
    const groups = [...this.#asked.values(), ...this.#confirmed.map(({ group }) => group)];
    if (this.#next) groups.push(this.#next);
    this.#next = undefined;
    this.#asked.clear();
    this.#confirmed = [];
    for (const group of groups) this.#reject(group, error);
  }

  #reject(group: Group, error: HoldfastError): void {
    this.#count -= group.count;
    group.done.reject(error);
  }
}
