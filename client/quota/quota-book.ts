import { assert } from '../../common/assert.js';
import { type QuotaAmount, QuotaKind, type QuotaRules } from '../../proto/gen/meta.js';

/** Bytes and inodes. */
export interface Amount {
  bytes: number;
  inodes: number;
}

/** One quota, and what of it the metaservers have set aside for this mount. */
export interface Account {
  readonly kind: QuotaKind;
  readonly id: number;
  /** Which of the two are limited. */
  limits: { bytes: boolean; inodes: boolean };
  /** Set aside, and taken by nobody here. */
  readonly free: Amount;
  /** Taken by changes that the metaservers have not answered yet. */
  readonly held: Amount;
  /** Clock ms of the last taking. */
  usedAt: number;
}

/** What one change may count, taken off all accounts that it counts for. */
export interface Hold {
  readonly parts: { readonly account: Account; bytes: number; inodes: number }[];
}

/** Who an inode counts for, as in its attributes. */
export interface Owner {
  project?: number | undefined;
  uid: number;
  gid: number;
}

/** Of what counts for nothing that is limited. */
export const NO_HOLD: Hold = { parts: [] };
const NOTHING: readonly Account[] = [];

/**
 * Which quotas there are, and what this mount has reserved of each. Pure. Invariant: the metaservers hold at least
 * `free` + `held` of each account for this session.
 */
export class QuotaBook {
  #accounts = new Map<string, Account>();
  /** Trees: the one around each. */
  #parents = new Map<number, number>();
  #limitsOwners = false;

  /** Anything is limited at all. */
  get active(): boolean {
    return this.#accounts.size > 0;
  }

  /** Users or groups are limited: a change of owners is the metaservers' to allow. */
  get limitsOwners(): boolean {
    return this.#limitsOwners;
  }

  /** The metaservers say which quotas there are; what was reserved of others is void. */
  setRules({ rules }: QuotaRules): void {
    const accounts = new Map<string, Account>();
    this.#parents = new Map();
    this.#limitsOwners = false;
    for (const { kind, id, parent, bytes, inodes } of rules) {
      if (kind === QuotaKind.QUOTA_TREE) this.#parents.set(id, parent);
      else this.#limitsOwners = true;
      if (!bytes && !inodes) continue;
      const key = keyOf(kind, id);
      const account = this.#accounts.get(key) ?? newAccount(kind, id);
      account.limits = { bytes, inodes };
      accounts.set(key, account);
    }
    this.#accounts = accounts;
  }

  /** The session is over, and its reservations with it. */
  sessionLost(): void {
    for (const account of this.accounts())
      for (const amount of [account.free, account.held]) amount.bytes = amount.inodes = 0;
  }

  accounts(): Iterable<Account> {
    return this.#accounts.values();
  }

  account(kind: QuotaKind, id: number): Account | undefined {
    return this.#accounts.get(keyOf(kind, id));
  }

  /** The limited accounts that an inode counts for. */
  accountsOf({ project = 0, uid, gid }: Owner): readonly Account[] {
    if (this.#accounts.size === 0) return NOTHING;
    const found: Account[] = [];
    const add = (kind: QuotaKind, id: number): void => {
      const account = this.#accounts.get(keyOf(kind, id));
      if (account) found.push(account);
    };
    for (let id: number | undefined = project; id; id = this.#parents.get(id)) add(QuotaKind.QUOTA_TREE, id);
    add(QuotaKind.QUOTA_USER, uid);
    add(QuotaKind.QUOTA_GROUP, gid);
    return found;
  }

  /** Takes what a change may count off every account, or nothing. @returns undefined when one has not enough */
  take(accounts: readonly Account[], amount: Amount, now: number): Hold | undefined {
    const parts = accounts.map((account) => ({ account, ...limited(account, amount) }));
    if (parts.some(({ account: { free }, bytes, inodes }) => bytes > free.bytes || inodes > free.inodes))
      return undefined;
    for (const part of parts) {
      part.account.usedAt = now;
      move(part.account.free, part.account.held, part);
    }
    return { parts };
  }

  /** What of an amount is missing, account by account. */
  missing(accounts: readonly Account[], amount: Amount): QuotaAmount[] {
    return accounts.map((account) => {
      const { bytes, inodes } = limited(account, amount);
      const { kind, id, free } = account;
      return { kind, id, bytes: Math.max(0, bytes - free.bytes), inodes: Math.max(0, inodes - free.inodes) };
    });
  }

  granted(amounts: readonly QuotaAmount[]): void {
    for (const { kind, id, bytes, inodes } of amounts) {
      const account = this.account(kind, id);
      if (!account) continue;
      account.free.bytes += bytes;
      account.free.inodes += inodes;
    }
  }

  /** The change was not made: another one may have it. */
  release(hold: Hold): void {
    for (const part of hold.parts) {
      move(part.account.held, part.account.free, part);
      part.bytes = part.inodes = 0;
    }
  }

  /** The change takes no more bytes than that. */
  shrink(hold: Hold, bytes: number): void {
    for (const part of hold.parts) {
      const surplus = Math.max(0, part.bytes - bytes);
      move(part.account.held, part.account.free, { bytes: surplus, inodes: 0 });
      part.bytes -= surplus;
    }
  }

  /** The metaservers have ended the reservation, with the change. */
  settled(hold: Hold): void {
    for (const { account, bytes, inodes } of hold.parts) {
      account.held.bytes = Math.max(0, account.held.bytes - bytes);
      account.held.inodes = Math.max(0, account.held.inodes - inodes);
    }
  }

  /** What nobody here has taken goes back. */
  takeFree(account: Account): QuotaAmount {
    const { kind, id, free } = account;
    const amount = { kind, id, bytes: free.bytes, inodes: free.inodes };
    free.bytes = free.inodes = 0;
    return amount;
  }
}

/** For Mutation.spent; undefined: nothing was taken. */
export function amountsOf({ parts }: Hold): QuotaAmount[] | undefined {
  const taken = parts.filter(({ bytes, inodes }) => bytes > 0 || inodes > 0);
  if (taken.length === 0) return undefined;
  return taken.map(({ account: { kind, id }, bytes, inodes }) => ({ kind, id, bytes, inodes }));
}

/** Adds what was taken for one change to what was taken for others before it. */
export function mergeHold(into: Hold, hold: Hold): void {
  for (const part of hold.parts) {
    const same = into.parts.find(({ account }) => account === part.account);
    if (same) {
      same.bytes += part.bytes;
      same.inodes += part.inodes;
    } else into.parts.push({ ...part });
  }
}

function newAccount(kind: QuotaKind, id: number): Account {
  const nothing = (): Amount => ({ bytes: 0, inodes: 0 });
  return { kind, id, limits: { bytes: false, inodes: false }, free: nothing(), held: nothing(), usedAt: 0 };
}

function limited({ limits }: Account, { bytes, inodes }: Amount): Amount {
  return { bytes: limits.bytes ? bytes : 0, inodes: limits.inodes ? inodes : 0 };
}

/** A session that was lost meanwhile has taken everything away: not below 0. */
function move(from: Amount, to: Amount, { bytes, inodes }: Amount): void {
  assert(bytes >= 0 && inodes >= 0, 'amounts are not negative');
  const moved = { bytes: Math.min(from.bytes, bytes), inodes: Math.min(from.inodes, inodes) };
  from.bytes -= moved.bytes;
  from.inodes -= moved.inodes;
  to.bytes += moved.bytes;
  to.inodes += moved.inodes;
}

function keyOf(kind: QuotaKind, id: number): string {
  return `${kind}/${id}`;
}
