import { delay } from '../../common/clock.js';
import { toHoldfastError } from '../../proto/errors.js';
import { type Lease, LeaseMode, type QuotaAmount, type QuotaRules } from '../../proto/gen/meta.js';
import type { RecallOrder } from '../leases/lease-table.js';
import type { LeaseEvents } from '../meta/api.js';
import type { VfsContext } from './context.js';

/** A flush that takes longer than this says so, again and again: the leader waits on. */
export const FLUSHING_NOTICE_MS = 2_000;
/**
 * The kernel's pages are dropped so long after the session was lost. Nobody sees them meanwhile unasked: what the kernel may
 * believe ends with the leases, and a size or time that differs makes it drop them. At once would be too early for the programs
 * that wait for their first answer then: see AttrRequests.
 */
const PAGES_KEPT_AFTER_LOSS_MS = 1_000;
/** Leases beyond the bound are looked for after so many operations. */
const TRIM_INTERVAL_MS = 1_000;

export interface RecallListener {
  /** The session is over: what else was kept for it is worthless. */
  lost(): void;
  /** Somebody else wants what was leased exclusively. */
  taken(ino: number): void;
}

/**
 * Gives leases back: what was buffered under them is written, what the kernel and this mount believed is dropped, then
 * the leader is told. A recall never waits for a lock that a call in progress holds: see KernelEntries.
 */
export class Recalls implements LeaseEvents {
  readonly #context: VfsContext;
  readonly #listener: RecallListener;
  #trimmedAt = 0;
  /** What goes back with the others of this turn. */
  #returning: Lease[] = [];

  constructor(context: VfsContext, listener: RecallListener) {
    this.#context = context;
    this.#listener = listener;
  }

  onRecall(orders: readonly RecallOrder[]): void {
    for (const order of orders) {
      if (order.from === LeaseMode.LEASE_EXCLUSIVE) this.#listener.taken(order.ino);
      // At once: a later grant must not make good again what is known now.
      if (order.keep === LeaseMode.LEASE_NONE && order.from !== LeaseMode.LEASE_NONE) this.#drop(order.ino);
      if (order.from === LeaseMode.LEASE_EXCLUSIVE) this.#context.files.shared(order.ino);
      void this.#obey(order);
    }
  }

  onSessionLost(inos: readonly number[]): void {
    const { log } = this.#context;
    this.#listener.lost();
    log.warn({ leases: inos.length }, 'all leases are lost with the session');
    this.#context.names.clear();
    this.#context.kernel.expireAll();
    for (const ino of inos) {
      this.#context.files.shared(ino);
      this.#context.files.dropBlocks(ino);
      this.#context.inodes.leaseLost(ino);
      this.#invalidateLost(ino).catch((error: unknown) =>
        log.error({ ino, err: error }, 'invalidation failed'),
      );
    }
  }

  onQuotaRules(rules: QuotaRules): void {
    this.#context.quotas.setRules(rules);
  }

  onQuotaRecall(amounts: readonly QuotaAmount[]): void {
    const { quotas, log } = this.#context;
    quotas
      .recalled(amounts)
      .catch((error: unknown) =>
        log.warn({ error: toHoldfastError(error).message }, 'reservations not given back'),
      );
  }

  /** Gives back what is too much, those unused for longest first. Cheap when nothing is. */
  trim(): void {
    const { meta, clock, lane, files } = this.#context;
    const now = clock.now();
    if (now - this.#trimmedAt < TRIM_INTERVAL_MS) return;
    this.#trimmedAt = now;
    const surplus = meta.leases.surplus((ino) => !lane.touches([ino]) && !files.get(ino));
    const returned: Promise<Lease | undefined>[] = surplus.map(async (ino) => {
      const order = meta.leases.drop(ino);
      if (!order) return undefined;
      await this.#forget(ino);
      return meta.leases.returned(order);
    });
    void Promise.all(returned).then((leases) =>
      meta.returnLeases(leases.filter((lease) => lease !== undefined)),
    );
  }

  async #obey(order: RecallOrder): Promise<void> {
    const { ino, from, keep, seq } = order;
    const { meta, clock, log } = this.#context;
    const notice = clock.every(FLUSHING_NOTICE_MS, () => {
      if (meta.leases.isCurrent(order)) meta.returnLeases([{ ino, mode: from, seq }]);
    });
    try {
      if (from === LeaseMode.LEASE_EXCLUSIVE) await this.#flush(ino);
      if (keep === LeaseMode.LEASE_NONE && from !== LeaseMode.LEASE_NONE) await this.#forget(ino);
      meta.announceOpen([ino]);
    } catch (error) {
      log.error(
        { ino, error: toHoldfastError(error).message },
        'a lease is given back in spite of a failure',
      );
    } finally {
      notice.cancel();
    }
    const lease = meta.leases.returned(order);
    if (lease) this.#giveBack(lease);
  }

  /** A page of a listing is recalled at once: what is ready at once goes back in one message. */
  #giveBack(lease: Lease): void {
    this.#returning.push(lease);
    if (this.#returning.length > 1) return;
    queueMicrotask(() => this.#context.meta.returnLeases(this.#returning.splice(0)));
  }

  /** Everything that was written or changed under an exclusive lease is where others see it. */
  async #flush(ino: number): Promise<void> {
    const { files, lane, ownedChanges } = this.#context;
    const file = files.get(ino);
    const changing = ownedChanges.ended(ino);
    if (changing) await lane.urgently(changing);
    if (file && !file.clean) await lane.urgently(file.flush());
    await lane.settledFor([ino]);
    if (!file || file.clean) return;
    // A flush may leave times to the commit of what was closed meanwhile, which the lane has had now.
    await lane.urgently(file.flush());
    await lane.settledFor([ino]);
  }

  #drop(ino: number): void {
    this.#context.inodes.leaseLost(ino);
    this.#context.names.drop(ino);
    this.#context.files.dropBlocks(ino);
  }

  async #forget(ino: number): Promise<void> {
    this.#drop(ino);
    await this.#context.notifier?.takenIn?.(ino);
    await Promise.all([this.#context.kernel.expire(ino), this.#context.dropPages(ino)]);
  }

  /** Others may have changed the inode long ago: who reads it now must not be given the size of before. */
  async #invalidateLost(ino: number): Promise<void> {
    await delay(this.#context.clock, PAGES_KEPT_AFTER_LOSS_MS);
    await this.#context.attrRequests.answered(ino);
    await this.#context.dropPages(ino);
  }
}
