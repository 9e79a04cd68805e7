import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { MetaReplica } from './ports.js';

/** With so many waiting nothing that keeps an order is taken any more. Reads are bounded by those in flight on each stream. */
export const IN_ORDER_WAITING_MAX = 65_536;

interface WaitingRead {
  run: () => void;
  fail: (error: HoldfastError) => void;
}

/**
 * Lets reads through as soon as they are linearizable: at once, without a promise, while the leader's lease holds;
 * else behind a read barrier that was begun after the read arrived. One barrier serves all that wait for it.
 */
export class ReadGate {
  readonly #replica: Pick<MetaReplica, 'canReadNow' | 'readBarrier'>;
  #queue: WaitingRead[] = [];
  #running = false;

  constructor(replica: Pick<MetaReplica, 'canReadNow' | 'readBarrier'>) {
    this.#replica = replica;
  }

  /** @returns true when `run` was called, false when it waits */
  pass(run: () => void, fail: (error: HoldfastError) => void): boolean {
    if (this.#replica.canReadNow()) {
      run();
      return true;
    }
    this.#queue.push({ run, fail });
    if (!this.#running) void this.#barrier();
    return false;
  }

  /** As `pass`, for what must not overtake what passed or waits already; fails with OVERLOADED when too much waits. */
  passInOrder(run: () => void, fail: (error: HoldfastError) => void): void {
    if (!this.#running) {
      this.pass(run, fail);
      return;
    }
    if (this.#queue.length >= IN_ORDER_WAITING_MAX) {
      fail(new HoldfastError('OVERLOADED'));
      return;
    }
    this.#queue.push({ run, fail });
  }

  async #barrier(): Promise<void> {
    this.#running = true;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      let failure: HoldfastError | undefined;
      try {
        await this.#replica.readBarrier();
      } catch (error) {
        failure = toHoldfastError(error);
      }
      for (const read of batch) {
        if (failure) read.fail(failure);
        else read.run();
      }
    }
    this.#running = false;
  }
}
