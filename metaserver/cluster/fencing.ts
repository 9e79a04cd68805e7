import { type Deferred, deferred } from '../../common/deferred.js';
import type { HoldfastError } from '../../proto/errors.js';
import type { Fence } from '../../proto/gen/cluster.js';

export interface FencingOptions {
  /** Which sessions are to be refused now. */
  fence(): Fence;
  /** Chunkservers that may hold a lease: alive in the cluster map. */
  alive(): ReadonlySet<number>;
  /** Sends the fence to every registered chunkserver. */
  push(fence: Fence): void;
}

interface Waiting {
  version: number;
  done: Deferred<void>;
}

/**
 * Makes every chunkserver that may serve refuse the sessions that are over. A chunkserver that registers is given the
 * fence of that moment before it serves anything; those that serve already have to answer. One that the map drops
 * holds no lease any more, and has to register.
 */
export class Fencing {
  readonly #options: FencingOptions;
  /** The newest fence that each chunkserver keeps, since this leadership began. */
  readonly #kept = new Map<number, number>();
  #waiting: Waiting[] = [];

  constructor(options: FencingOptions) {
    this.#options = options;
  }

  /**
   * Resolves when no request of a session that is over now can have an effect any more.
   * @throws HoldfastError what end() is given
   */
  shutOut(): Promise<void> {
    const fence = this.#options.fence();
    const waiting = { version: fence.version, done: deferred<void>() };
    this.#waiting.push(waiting);
    this.#options.push(fence);
    this.check();
    return waiting.done.promise;
  }

  /** A chunkserver keeps a fence, and has finished what it had begun for those whom it shuts out. */
  kept(server: number, version: number): void {
    this.#kept.set(server, Math.max(version, this.#kept.get(server) ?? 0));
    this.check();
  }

  /** To be called when the map has changed too: servers that it dropped need not answer. */
  check(): void {
    if (this.#waiting.length === 0) return;
    let version = Number.POSITIVE_INFINITY;
    for (const server of this.#options.alive()) version = Math.min(version, this.#kept.get(server) ?? 0);
    const done = this.#waiting.filter((waiting) => waiting.version <= version);
    this.#waiting = this.#waiting.filter((waiting) => waiting.version > version);
    for (const waiting of done) waiting.done.resolve();
  }

  /** The leadership is over. */
  end(error: HoldfastError): void {
    this.#kept.clear();
    for (const { done } of this.#waiting.splice(0)) done.reject(error);
  }
}
