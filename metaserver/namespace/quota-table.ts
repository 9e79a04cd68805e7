import { HoldfastError } from '../../proto/errors.js';
import { type QuotaAmount, type QuotaGrant, QuotaKind, type QuotaRules } from '../../proto/gen/meta.js';
import type { KvReader, KvTransaction } from '../store/kv.js';
import { type Inode, isRegular } from './inode-codec.js';
import { parseQuotaKey, quotaKey, tableRange } from './keys.js';
import { decodeQuota, encodeQuota, isTree, type Quota, QuotaState } from './quota-records.js';
import { QuotaReservations } from './quota-reservations.js';

/** Quotas of a cluster: all of them are in memory, and told to every client. */
export const QUOTAS_MAX = 4096;
/** The part of what is left under a limit that a reservation may take beyond its need: 1 in so many. */
const SPARE_SHARE = 4;

/** Who an inode counts for. */
export interface Owner {
  project: number;
  uid: number;
  gid: number;
}

/** What an inode counts. */
export interface Charge extends Owner {
  bytes: number;
  /** A regular file without a name. */
  orphan: boolean;
}

/** What the inode counts, as it is now. */
export function chargeOf(inode: Inode): Charge {
  const { project, uid, gid, allocated, nlink } = inode;
  return { project, uid, gid, bytes: allocated, orphan: nlink === 0 && isRegular(inode) };
}

/**
 * All quotas, what counts towards them, and what sessions have reserved. Replicated state, in memory as a whole; it is
 * written at the end of each batch. Invariants:
 * - a quota's bytes and inodes are the sums over the inodes that count for it, at the end of every command;
 * - what is counted and reserved stays below an active limit, except by what was done before the limit was set and by
 *   changes that a client has acknowledged already: those are never refused.
 */
export class QuotaTable {
  readonly reservations: QuotaReservations;
  readonly #quotas = new Map<QuotaKind, Map<number, Quota>>();
  readonly #dirty = new Set<Quota>();
  #rules: QuotaRules | undefined;

  constructor(kv: KvReader) {
    this.reservations = new QuotaReservations();
    this.reload(kv);
  }

  /** Takes over what the store holds now. */
  reload(kv: KvReader): void {
    for (const kind of [QuotaKind.QUOTA_TREE, QuotaKind.QUOTA_USER, QuotaKind.QUOTA_GROUP])
      this.#quotas.set(kind, new Map());
    this.#dirty.clear();
    this.#rules = undefined;
    const { start, end } = tableRange('Q');
    for (const { key, value } of kv.range(start, end)) {
      const { kind, id } = parseQuotaKey(key);
      this.#quotas.get(kind)?.set(id, decodeQuota(kind, id, value));
    }
    this.reservations.reload(kv, (kind, id) => this.get(kind, id));
  }

  /** Without any quota nothing has to be counted. */
  get size(): number {
    let size = 0;
    for (const quotas of this.#quotas.values()) size += quotas.size;
    return size;
  }

  get(kind: QuotaKind, id: number): Quota | undefined {
    return this.#quotas.get(kind)?.get(id);
  }

  *all(): Generator<Quota> {
    for (const quotas of this.#quotas.values()) yield* quotas.values();
  }

  /** The quota of the tree that this inode is the top of. */
  rootedAt({ ino, project }: Pick<Inode, 'ino' | 'project'>): Quota | undefined {
    const quota = project === 0 ? undefined : this.get(QuotaKind.QUOTA_TREE, project);
    return quota?.root === ino ? quota : undefined;
  }

  /** The tree in which an inode's names lie. */
  outer(inode: Pick<Inode, 'ino' | 'project'>): number {
    return this.rootedAt(inode)?.parent ?? inode.project;
  }

  /** The tree that is being counted or taken apart: one at a time. */
  walking(): Quota | undefined {
    for (const quota of this.#quotas.get(QuotaKind.QUOTA_TREE)?.values() ?? [])
      if (isWalking(quota)) return quota;
    return undefined;
  }

  add(quota: Quota): void {
    this.#quotas.get(quota.kind)?.set(quota.id, quota);
    this.changed(quota);
  }

  /** The quota is written with this batch, and clients are told. */
  changed(quota: Quota): void {
    this.#dirty.add(quota);
    this.#rules = undefined;
  }

  remove(quota: Quota): void {
    this.#quotas.get(quota.kind)?.delete(quota.id);
    this.reservations.forget(quota);
    this.changed(quota);
  }

  /** The trees around a tree, itself first. */
  *chain(project: number): Generator<Quota> {
    for (let id = project; id !== 0; ) {
      const quota = this.get(QuotaKind.QUOTA_TREE, id);
      if (!quota) return;
      yield quota;
      id = quota.parent;
    }
  }

  /** All that an inode of this owner counts for. */
  *accounts({ project, uid, gid }: Owner): Generator<Quota> {
    if (project !== 0) yield* this.chain(project);
    const user = this.get(QuotaKind.QUOTA_USER, uid);
    if (user) yield user;
    const group = this.get(QuotaKind.QUOTA_GROUP, gid);
    if (group) yield group;
  }

  /** An inode changed. @param before what it counted so far, undefined: it is new; @param after undefined: it is gone */
  move(ino: number, before: Charge | undefined, after: Charge | undefined): void {
    if (before) this.#count(ino, before, -1);
    if (after) this.#count(ino, after, 1);
    if (before && !after) this.#rootGone(ino, before);
    if (before) for (const quota of [...this.accounts(before)]) this.#dropIfUnused(quota);
  }

  /** What counts in one tree counts from now on in the trees around another one, too. */
  reparent(tree: Quota, parent: number): void {
    const { bytes, inodes, orphans } = tree;
    for (const quota of this.chain(tree.parent)) this.adjust(quota, -bytes, -inodes, -orphans);
    tree.parent = parent;
    for (const quota of this.chain(parent)) this.adjust(quota, bytes, inodes, orphans);
    this.changed(tree);
  }

  /** Sums never go below 0: what is wrong with them, a check finds. */
  adjust(quota: Quota, bytes: number, inodes: number, orphans: number): void {
    quota.bytes = Math.max(0, quota.bytes + bytes);
    quota.inodes = Math.max(0, quota.inodes + inodes);
    quota.orphans = Math.max(0, quota.orphans + orphans);
    this.#dirty.add(quota);
  }

  /**
   * Checks that something may be counted for `to` that so far counts for `from`, or is new.
   * @throws HoldfastError EDQUOT
   */
  admit(to: Owner, from: Owner | undefined, bytes: number, inodes: number): void {
    const known = from ? new Set(this.accounts(from)) : undefined;
    for (const quota of this.accounts(to)) {
      if (known?.has(quota) || this.#fits(quota, bytes, inodes)) continue;
      throw new HoldfastError('EDQUOT');
    }
  }

  /** Sets aside what a session is about to use; all that it needs, or nothing. */
  reserve(session: number, need: readonly QuotaAmount[], want: readonly QuotaAmount[]): QuotaGrant {
    const answer: QuotaGrant = { granted: [], held: false, reclaiming: false };
    let short = false;
    for (const { kind, id, bytes, inodes } of need) {
      const quota = this.get(kind, id);
      if (!quota || this.#fits(quota, bytes, inodes)) continue;
      short = true;
      answer.held ||= this.reservations.heldByOthers(quota, session);
      answer.reclaiming ||= quota.orphans > 0;
    }
    if (short) return answer;
    for (const amount of need) {
      const { kind, id } = amount;
      const quota = this.get(kind, id);
      const more = want.find((one) => one.kind === kind && one.id === id);
      const granted = quota ? this.#withSpare(quota, amount, more) : amount;
      if (quota) this.reservations.add(quota, session, granted);
      answer.granted.push(granted);
    }
    return answer;
  }

  /** Of the trees around an inode the tightest limits, and what is left under them; undefined: there is none. */
  room(project: number): Record<'bytes' | 'inodes', { limit: number; left: number } | undefined> {
    let bytes: { limit: number; left: number } | undefined;
    let inodes: typeof bytes;
    for (const quota of this.chain(project)) {
      if (quota.state !== QuotaState.ACTIVE) continue;
      bytes = tighter(bytes, quota.limitBytes, quota.bytes);
      inodes = tighter(inodes, quota.limitInodes, quota.inodes);
    }
    return { bytes, inodes };
  }

  /** What clients are told; the same object until something of it changes. */
  rules(): QuotaRules {
    if (this.#rules) return this.#rules;
    const rules: QuotaRules['rules'] = [];
    for (const quota of this.all()) {
      const binds = quota.state === QuotaState.COUNTING || quota.state === QuotaState.ACTIVE;
      const [bytes, inodes] = [binds && quota.limitBytes > 0, binds && quota.limitInodes > 0];
      if (bytes || inodes || isTree(quota))
        rules.push({ kind: quota.kind, id: quota.id, parent: quota.parent, bytes, inodes });
    }
    this.#rules = { rules };
    return this.#rules;
  }

  flush(txn: KvTransaction): void {
    for (const quota of this.#dirty) {
      const key = quotaKey(quota.kind, quota.id);
      if (this.get(quota.kind, quota.id) === quota) txn.put(key, encodeQuota(quota));
      else if (!this.get(quota.kind, quota.id) && txn.get(key)) txn.delete(key);
    }
    this.#dirty.clear();
    this.reservations.flush(txn);
  }

  #count(ino: number, charge: Charge, sign: 1 | -1): void {
    for (const quota of this.accounts(charge)) {
      if (!isTree(quota) && quota.state === QuotaState.COUNTING && ino >= quota.cursor) continue;
      this.adjust(quota, sign * charge.bytes, sign, charge.orphan ? sign : 0);
    }
  }

  /** With its directory a quota ends. */
  #rootGone(ino: number, { project }: Charge): void {
    const quota = this.rootedAt({ ino, project });
    if (!quota) return;
    quota.state = isWalking(quota) ? QuotaState.REMOVING : QuotaState.GONE;
    this.ended(quota);
  }

  /** No limit holds any more, and nothing is reserved. */
  ended(quota: Quota): void {
    quota.root = 0;
    quota.limitBytes = quota.limitInodes = 0;
    this.reservations.forget(quota);
    this.changed(quota);
    this.#dropIfUnused(quota);
  }

  #dropIfUnused(quota: Quota): void {
    if (quota.state === QuotaState.GONE && quota.inodes === 0) this.remove(quota);
  }

  #fits(quota: Quota, bytes: number, inodes: number): boolean {
    if (quota.state !== QuotaState.ACTIVE) return true;
    const reserved = this.reservations.of(quota);
    const { limitBytes, limitInodes } = quota;
    return (
      (limitBytes === 0 || bytes === 0 || quota.bytes + reserved.bytes + bytes <= limitBytes) &&
      (limitInodes === 0 || inodes === 0 || quota.inodes + reserved.inodes + inodes <= limitInodes)
    );
  }

  /** Near a limit hardly more than is needed: what one session has reserved the others cannot use. */
  #withSpare(quota: Quota, need: QuotaAmount, want: QuotaAmount | undefined): QuotaAmount {
    const reserved = this.reservations.of(quota);
    const spare = (resource: 'bytes' | 'inodes', limit: number): number => {
      const wanted = want?.[resource] ?? 0;
      if (limit === 0) return wanted;
      if (quota.state !== QuotaState.ACTIVE) return 0; // how much is left is not known yet
      const left = limit - quota[resource] - reserved[resource] - need[resource];
      return Math.min(wanted, Math.max(0, Math.floor(left / SPARE_SHARE)));
    };
    const { kind, id } = need;
    const bytes = need.bytes + spare('bytes', quota.limitBytes);
    return { kind, id, bytes, inodes: need.inodes + spare('inodes', quota.limitInodes) };
  }
}

function isWalking({ kind, state }: Quota): boolean {
  return kind === QuotaKind.QUOTA_TREE && (state === QuotaState.COUNTING || state === QuotaState.REMOVING);
}

function tighter(
  known: { limit: number; left: number } | undefined,
  limit: number,
  used: number,
): { limit: number; left: number } | undefined {
  if (limit === 0) return known;
  const left = Math.max(0, limit - used);
  return known && known.left <= left ? known : { limit, left };
}
