import type { ErrorName, HoldfastError } from '../../proto/errors.js';
import type { Version } from '../store/chunk-store.js';
import type { PgContext } from './context.js';
import { type PgRequest, REPAIRS_MAX } from './types.js';

/** An answer that waits until what it shows is settled. */
export interface Held {
  readonly request: PgRequest;
  /** Operations that it shows and that are not settled yet. */
  waits: number;
  /** The store has answered. */
  ready: boolean;
  version: Version | undefined;
}

/**
 * Answers of a primary that wait: reads for the store, and for the operations that they may show; repetitions of a truncate
 * for the first one. Invariant: a read shows nothing that a new primary might lack.
 */
export class HeldAnswers {
  readonly #ctx: PgContext;
  readonly #held = new Map<PgRequest, Held>();
  readonly #repairs = new Map<PgRequest, number>();

  constructor(ctx: PgContext) {
    this.#ctx = ctx;
  }

  get requests(): Iterable<PgRequest> {
    return this.#held.keys();
  }

  clear(): void {
    this.#held.clear();
    this.#repairs.clear();
  }

  /** @param ready the store has nothing to say to it */
  hold(request: PgRequest, ready: boolean): Held {
    const held: Held = { request, waits: 0, ready, version: undefined };
    this.#held.set(request, held);
    return held;
  }

  /** An operation that it waited for is settled. */
  settled(held: Held, now: number): void {
    held.waits--;
    this.release(held, now);
  }

  /** Answers it if nothing is left to wait for. */
  release(held: Held, now: number): void {
    if (!held.ready || held.waits > 0 || !this.#drop(held)) return;
    if (this.#ctx.hasLease(now)) {
      const { request, version } = held;
      this.#ctx.emit({ kind: 'answer', request, error: undefined, aux: 0, version });
    } else this.#refuse(held.request, 'NOT_PRIMARY', 'the lease has ended');
  }

  readDone(
    request: PgRequest,
    error: HoldfastError | undefined,
    version: Version | undefined,
    now: number,
  ): void {
    const held = this.#held.get(request);
    if (!held) return;
    if (!error) {
      held.ready = true;
      held.version = version;
      this.release(held, now);
      return;
    }
    const repairs = this.#repairs.get(request) ?? 0;
    const { inSyncPeers } = this.#ctx;
    const from = inSyncPeers.filter((server) => !this.#ctx.isLost(server));
    if (error.errorName !== 'CORRUPT' || repairs >= REPAIRS_MAX || from.length === 0) {
      this.#drop(held);
      let name = error.errorName;
      // Who does not follow may be back, or be dropped, by the next attempt.
      if (name === 'CORRUPT') name = from.length < inSyncPeers.length ? 'UNAVAILABLE' : this.#nameOfDamage;
      this.#refuse(request, name, error.message);
      return;
    }
    this.#repairs.set(request, repairs + 1);
    this.#ctx.emit({ kind: 'repair', request, from });
  }

  repaired(request: PgRequest, error: HoldfastError | undefined): void {
    const held = this.#held.get(request);
    if (!held) return;
    if (!error) {
      this.#ctx.emit({ kind: 'read', request });
      return;
    }
    this.#drop(held);
    const name = error.errorName === 'UNAVAILABLE' ? 'UNAVAILABLE' : this.#nameOfDamage;
    this.#refuse(request, name, `repair failed: ${error.message}`);
  }

  /** In-sync replicas have no sound copy. Others may, which are whole and will be in-sync; else coming again cannot help. */
  get #nameOfDamage(): ErrorName {
    return this.#ctx.hasWholePeers ? 'UNAVAILABLE' : 'EIO';
  }

  expire(now: number): void {
    for (const held of [...this.#held.values()]) {
      if (held.request.deadline > now) continue;
      this.#drop(held);
      this.#refuse(held.request, 'DEADLINE_EXCEEDED');
    }
  }

  #drop(held: Held): boolean {
    this.#repairs.delete(held.request);
    return this.#held.delete(held.request);
  }

  #refuse(request: PgRequest, error: ErrorName, detail?: string): void {
    this.#ctx.emit({ kind: 'answer', request, error, detail });
  }
}
