import { type Clock, delay, type Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { QuotaAmount, QuotaGrant, QuotaRules, ReserveQuota } from '../../proto/gen/meta.js';
import { type Interrupt, interruptible } from '../wait.js';
import { type Account, type Amount, type Hold, NO_HOLD, type Owner, QuotaBook } from './quota-book.js';

/** Asked for beyond the need; near a limit the metaservers give less. */
export const WANT_BYTES = 16 * 1024 * 1024;
export const WANT_INODES = 512;
/** What other mounts have set aside is waited for so long, while they write back and return it. */
export const OTHERS_WAIT_MAX_MS = 5_000;
/** And files without names so long, that they may be deleted. */
export const RECLAIM_WAIT_MAX_MS = 5_000;
const RETRY_MS = 100;
/** Nobody waits again for what was waited for in vain, for so long. */
const HOPELESS_MS = 5_000;
/** What was not used for so long is given back. */
export const IDLE_MS = 2_000;
const IDLE_CHECK_INTERVAL_MS = 1_000;
/** More than can be reserved: everything. */
const EVERYTHING = 2 ** 52;

export interface QuotaKeeperDeps {
  clock: Clock;
  log: Logger;
  /** As the mutation. */
  reserve(op: ReserveQuota, signal?: Interrupt): Promise<QuotaGrant | undefined>;
  /** Everything that was written or changed here so far is on the servers. */
  writeBack(): Promise<void>;
}

/**
 * Has the metaservers set aside what this mount is about to acknowledge: nothing that a program was told to be done is
 * refused later for want of room. In trees without a limit it does nothing.
 */
export class QuotaKeeper {
  readonly book = new QuotaBook();
  readonly #deps: QuotaKeeperDeps;
  #asking: Promise<void> | undefined;
  #hopelessUntil = -Infinity;
  #timer: Timer | undefined;

  constructor(deps: QuotaKeeperDeps) {
    this.#deps = deps;
  }

  setRules(rules: QuotaRules): void {
    this.book.setRules(rules);
  }

  /**
   * Takes what a change of an inode of this owner may count. undefined when it cannot be said at once: ask acquire().
   */
  take(owner: Owner, amount: Amount): Hold | undefined {
    if (!this.book.active) return NO_HOLD;
    const accounts = this.book.accountsOf(owner);
    return accounts.length === 0 ? NO_HOLD : this.book.take(accounts, amount, this.#deps.clock.now());
  }

  /**
   * The same, asking for more where that is needed.
   * @throws HoldfastError EDQUOT; EINTR when `signal` aborts
   */
  async acquire(owner: Owner, amount: Amount, signal?: Interrupt): Promise<Hold> {
    const { clock } = this.#deps;
    const beganAt = clock.now();
    let writtenBack = false;
    for (;;) {
      const hold = this.take(owner, amount);
      if (hold) return hold;
      if (this.#asking) {
        await interruptible(this.#asking, signal);
        continue;
      }
      const accounts = this.book.accountsOf(owner);
      const { granted, held, reclaiming } = await this.#ask(accounts, amount, signal);
      if (granted) continue;
      if (!writtenBack && accounts.some(({ held: own }) => own.bytes > 0 || own.inodes > 0)) {
        // What was taken for more than once is worth more when it is counted as it is.
        writtenBack = true;
        await interruptible(this.#deps.writeBack(), signal);
        continue;
      }
      if (reclaiming && !writtenBack) {
        writtenBack = true;
        await interruptible(this.#deps.writeBack(), signal);
      }
      this.#checkHope(beganAt, held, reclaiming);
      await interruptible(delay(clock, RETRY_MS), signal);
    }
  }

  /** Others need it: what was written goes to the servers first, so that it counts no more than it takes. */
  async recalled(amounts: readonly QuotaAmount[]): Promise<void> {
    const accounts = this.#known(amounts);
    if (accounts.some(({ held }) => held.bytes > 0 || held.inodes > 0)) await this.#deps.writeBack();
    const surplus = this.#known(amounts).map((account) => this.book.takeFree(account));
    await this.#giveBack(surplus.filter(({ bytes, inodes }) => bytes > 0 || inodes > 0));
  }

  sessionLost(): void {
    this.book.sessionLost();
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #known(amounts: readonly QuotaAmount[]): Account[] {
    return amounts.flatMap(({ kind, id }) => this.book.account(kind, id) ?? []);
  }

  /** @throws HoldfastError EDQUOT when waiting longer is of no use */
  #checkHope(beganAt: number, held: boolean, reclaiming: boolean): void {
    const now = this.#deps.clock.now();
    const limit = held ? OTHERS_WAIT_MAX_MS : reclaiming ? RECLAIM_WAIT_MAX_MS : 0;
    if (limit > 0 && now >= this.#hopelessUntil && now - beganAt < limit) return;
    if (limit > 0 && now >= this.#hopelessUntil) this.#hopelessUntil = now + HOPELESS_MS;
    throw new HoldfastError('EDQUOT');
  }

  /** One at a time: what one brings, the next one need not ask for. */
  async #ask(
    accounts: readonly Account[],
    amount: Amount,
    signal: Interrupt | undefined,
  ): Promise<{ granted: boolean; held: boolean; reclaiming: boolean }> {
    const need = this.book.missing(accounts, amount);
    const want = need.map(({ kind, id, bytes, inodes }) => ({
      kind,
      id,
      bytes: bytes > 0 ? WANT_BYTES : 0,
      inodes: inodes > 0 ? WANT_INODES : 0,
    }));
    const asked = this.#deps.reserve({ need, want, giveBack: [] }).then((reply) => {
      this.book.granted(reply?.granted ?? []);
      return reply;
    });
    this.#lock(asked);
    this.#watch();
    const reply = await interruptible(asked, signal);
    this.#hopelessUntil = reply?.granted.length ? -Infinity : this.#hopelessUntil;
    return {
      granted: (reply?.granted.length ?? 0) > 0,
      held: reply?.held ?? false,
      reclaiming: reply?.reclaiming ?? false,
    };
  }

  async #giveBack(giveBack: QuotaAmount[]): Promise<void> {
    if (giveBack.length === 0) return;
    while (this.#asking) await this.#asking;
    const given = this.#deps.reserve({ need: [], want: [], giveBack });
    this.#lock(given);
    await given;
  }

  #lock(asked: Promise<unknown>): void {
    const settled = asked.then(
      () => undefined,
      () => undefined, // who asked has heard it
    );
    this.#asking = settled;
    void settled.then(() => {
      if (this.#asking === settled) this.#asking = undefined;
    });
  }

  #watch(): void {
    this.#timer ??= this.#deps.clock.every(IDLE_CHECK_INTERVAL_MS, () => this.#returnIdle(), { weak: true });
  }

  /**
   * With nothing taken, nothing that ends a reservation is on its way: all can go back, whatever the metaservers hold. So
   * what an interrupted call may have left there goes too.
   */
  #returnIdle(): void {
    const { clock, log } = this.#deps;
    if (this.#asking) return; // what is granted now must not be given back with the rest
    const idle: QuotaAmount[] = [];
    let busy = false;
    for (const account of this.book.accounts()) {
      const { kind, id, held, usedAt } = account;
      const unused = held.bytes === 0 && held.inodes === 0 && clock.now() - usedAt >= IDLE_MS;
      if (!unused) busy ||= usedAt > 0;
      else if (usedAt > 0) {
        account.usedAt = 0;
        this.book.takeFree(account);
        idle.push({ kind, id, bytes: EVERYTHING, inodes: EVERYTHING });
      }
    }
    if (!busy && idle.length === 0) this.close();
    this.#giveBack(idle).catch((error: unknown) => {
      log.debug({ error: toHoldfastError(error).errorName }, 'reservations not given back');
    });
  }
}
