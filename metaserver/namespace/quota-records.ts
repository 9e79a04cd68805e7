import { QuotaKind } from '../../proto/gen/meta.js';
import { readU64, writeU64 } from './keys.js';

/** What a quota is doing. Durable: the numbers stay. */
export enum QuotaState {
  /** What was there before it is being counted: the limits do not bind yet. */
  COUNTING = 0,
  ACTIVE = 1,
  /** The tree's inodes are being given to the tree around it. */
  REMOVING = 2,
  /** Ended; kept for files that were counted in it and have no way to it any more, until they are gone. */
  GONE = 3,
}

/** Limits of a tree, a user or a group, and what counts towards them. Bytes are those that st_blocks tells of. */
export interface Quota {
  readonly kind: QuotaKind;
  /** Of a tree: a number given once, Inode.project of its members; else uid or gid. */
  readonly id: number;
  state: QuotaState;
  /** Of a tree: its directory. */
  root: number;
  /** Of a tree: the one around it; 0: none. What counts here counts there too. */
  parent: number;
  /** 0: none. */
  limitBytes: number;
  limitInodes: number;
  bytes: number;
  inodes: number;
  /** Of the inodes, those without a name: they go when nobody has them open. */
  orphans: number;
  /** Counting a user or group: inodes with numbers below are counted. */
  cursor: number;
  /** Inodes looked at so far, while counting or removing. */
  done: number;
}

/** What a session has reserved and not used up. */
export interface Allotment {
  bytes: number;
  inodes: number;
}

const QUOTA_VERSION = 1;
const FIELDS = [
  'root',
  'parent',
  'limitBytes',
  'limitInodes',
  'bytes',
  'inodes',
  'orphans',
  'cursor',
  'done',
] as const satisfies (keyof Quota)[];

/** u8 version, u8 state, then the fields above as u64. Kind and id are the key's. */
export function encodeQuota(quota: Quota): Buffer {
  const bytes = Buffer.allocUnsafe(2 + FIELDS.length * 8);
  bytes[0] = QUOTA_VERSION;
  bytes[1] = quota.state;
  for (const [index, field] of FIELDS.entries()) writeU64(bytes, 2 + index * 8, quota[field]);
  return bytes;
}

/** Fields that a later version adds behind are ignored; those that are missing are 0. */
export function decodeQuota(kind: QuotaKind, id: number, bytes: Buffer): Quota {
  const quota = newQuota(kind, id);
  quota.state = bytes[1] as QuotaState;
  for (const [index, field] of FIELDS.entries()) {
    const at = 2 + index * 8;
    if (at + 8 <= bytes.length) quota[field] = readU64(bytes, at);
  }
  return quota;
}

/** A quota without limits, with nothing counted yet. */
export function newQuota(kind: QuotaKind, id: number): Quota {
  return {
    ...{ kind, id, state: QuotaState.COUNTING, root: 0, parent: 0 },
    ...{ limitBytes: 0, limitInodes: 0, bytes: 0, inodes: 0, orphans: 0, cursor: 0, done: 0 },
  };
}

/** u64 bytes, u64 inodes. */
export function encodeAllotment({ bytes, inodes }: Allotment): Buffer {
  const encoded = Buffer.allocUnsafe(16);
  writeU64(encoded, 0, bytes);
  writeU64(encoded, 8, inodes);
  return encoded;
}

export function decodeAllotment(encoded: Buffer): Allotment {
  return { bytes: readU64(encoded, 0), inodes: readU64(encoded, 8) };
}

export function isTree({ kind }: Quota): boolean {
  return kind === QuotaKind.QUOTA_TREE;
}
