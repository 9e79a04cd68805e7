import type { Clock } from '../../common/clock.js';
import { type Deferred, deferred } from '../../common/deferred.js';
import { HoldfastError } from '../../proto/errors.js';

export type LeadershipWatcher = (isLeader: boolean, term: number) => void;

/**
 * Whether this server leads, and whether it serves: a new leader serves once an entry of its own term is applied, for then all
 * that earlier leaders acknowledged is applied too.
 */
export class Leadership {
  readonly #watchers: LeadershipWatcher[] = [];
  #term = 0;
  #servingTerm = 0;
  #transfer: Deferred<void> | undefined;

  /** Term that this server leads; 0: none. */
  get term(): number {
    return this.#term;
  }

  /** Term in which it may answer; 0: none. */
  get servingTerm(): number {
    return this.#servingTerm;
  }

  /** Calls back whenever this server begins or ceases to serve, and at once when it serves now. */
  watch(watcher: LeadershipWatcher): void {
    this.#watchers.push(watcher);
    if (this.#servingTerm !== 0) watcher(true, this.#servingTerm);
  }

  /** This server leads in `term`, or (0) follows. @returns true when a leadership was lost */
  update(term: number): boolean {
    const lost = this.#term !== 0 && term !== this.#term;
    if (lost) this.#cease();
    this.#term = term;
    return lost;
  }

  /** The last entry applied is of `term`. @returns true when this server begins to serve by that */
  applied(term: number): boolean {
    if (this.#term === 0 || this.#servingTerm !== 0 || term !== this.#term) return false;
    this.#servingTerm = term;
    for (const watcher of this.#watchers) watcher(true, term);
    return true;
  }

  /** Resolves when the leadership is gone. @throws HoldfastError UNAVAILABLE when it is not within `timeoutMs` */
  async handedOver(clock: Clock, timeoutMs: number): Promise<void> {
    this.#transfer ??= deferred();
    const transfer = this.#transfer;
    const timer = clock.after(timeoutMs, () => {
      if (this.#transfer === transfer) this.#transfer = undefined;
      transfer.reject(new HoldfastError('UNAVAILABLE', 'the other metaserver did not take over'));
    });
    await transfer.promise.finally(() => timer.cancel());
  }

  #cease(): void {
    this.#transfer?.resolve();
    this.#transfer = undefined;
    const term = this.#servingTerm;
    this.#servingTerm = 0;
    if (term !== 0) for (const watcher of this.#watchers) watcher(false, term);
  }

  /** The server stops. */
  stop(): void {
    this.#term = 0;
    this.#cease();
  }
}
