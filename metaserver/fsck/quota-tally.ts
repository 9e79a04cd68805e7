import { type QuotaCorrections, QuotaKind } from '../../proto/gen/meta.js';
import { type Inode, isDirectory } from '../namespace/inode-codec.js';
import { parseQuotaKey, tableRange } from '../namespace/keys.js';
import { decodeQuota, isTree, type Quota, QuotaState } from '../namespace/quota-records.js';
import { chargeOf } from '../namespace/quota-table.js';
import type { KvReader } from '../store/kv.js';
import { readable } from './name-check.js';

/** Names of the kinds, as people know them. */
const KIND_NAMES: Record<number, string> = {
  [QuotaKind.QUOTA_TREE]: 'tree',
  [QuotaKind.QUOTA_USER]: 'user',
  [QuotaKind.QUOTA_GROUP]: 'group',
};

interface Sums {
  bytes: number;
  inodes: number;
  orphans: number;
}

/** Counts anew what counts towards each quota, and finds inodes that are counted in another tree than they lie in. */
export class QuotaTally {
  readonly #quotas = new Map<string, { quota: Quota; sums: Sums }>();
  /** While a tree is counted or taken apart, its inodes are in two places. */
  readonly #walking: boolean;

  constructor(view: KvReader) {
    let walking = false;
    const { start, end } = tableRange('Q');
    for (const { key, value } of view.range(start, end)) {
      const { kind, id } = parseQuotaKey(key);
      const quota = decodeQuota(kind, id, value);
      this.#quotas.set(keyOf(kind, id), { quota, sums: { bytes: 0, inodes: 0, orphans: 0 } });
      walking ||=
        isTree(quota) && (quota.state === QuotaState.COUNTING || quota.state === QuotaState.REMOVING);
    }
    this.#walking = walking;
  }

  /** An inode as it is when everything that was found is repaired. */
  count(inode: Inode): void {
    if (this.#quotas.size === 0) return;
    for (let id = inode.project; id !== 0; ) {
      const tree = this.#quotas.get(keyOf(QuotaKind.QUOTA_TREE, id));
      if (!tree) break;
      add(tree.sums, inode);
      id = tree.quota.parent;
    }
    for (const [kind, id] of [
      [QuotaKind.QUOTA_USER, inode.uid],
      [QuotaKind.QUOTA_GROUP, inode.gid],
    ] as const) {
      const owner = this.#quotas.get(keyOf(kind, id));
      if (!owner || (owner.quota.state === QuotaState.COUNTING && inode.ino >= owner.quota.cursor)) continue;
      add(owner.sums, inode);
    }
  }

  /** The tree that an inode belongs to by its only name; undefined: the one that it is counted in. */
  misplaced(view: KvReader, inode: Inode, parent: number): number | undefined {
    if (this.#quotas.size === 0 || this.#walking) return undefined;
    const own = this.#quotas.get(keyOf(QuotaKind.QUOTA_TREE, inode.project))?.quota;
    const above = readable(view, parent);
    if (!above || !isDirectory(above) || above.project === inode.project) return undefined;
    if (own?.root === inode.ino && own.parent === above.project) return undefined;
    return above.project;
  }

  /** What sets the quotas right; undefined: they are. */
  corrections(): { texts: string[]; repair: QuotaCorrections } | undefined {
    const texts: string[] = [];
    const corrections: QuotaCorrections['corrections'] = [];
    for (const { quota, sums } of this.#quotas.values()) {
      const { kind, id } = quota;
      const [bytes, inodes] = [sums.bytes - quota.bytes, sums.inodes - quota.inodes];
      const orphans = sums.orphans - quota.orphans;
      if (bytes === 0 && inodes === 0 && orphans === 0) continue;
      const what = isTree(quota) ? `directory ${quota.root}` : id;
      const counted = `${quota.bytes} bytes in ${quota.inodes} inodes`;
      texts.push(
        `quota of ${KIND_NAMES[kind]} ${what} counts ${counted} for ${sums.bytes} in ${sums.inodes}`,
      );
      corrections.push({ kind, id, bytes, inodes, orphans });
    }
    return texts.length > 0 ? { texts, repair: { corrections } } : undefined;
  }
}

function keyOf(kind: QuotaKind, id: number): string {
  return `${kind}/${id}`;
}

function add(sums: Sums, inode: Inode): void {
  const { bytes, orphan } = chargeOf(inode);
  sums.bytes += bytes;
  sums.inodes++;
  if (orphan) sums.orphans++;
}
