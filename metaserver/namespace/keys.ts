/**
 * The state machine's keys in the Kv. This is a durable format: tests/metaserver/namespace/keys.test.ts pins it, and
 * FORMAT_VERSION rises with any change. One letter names the table; numbers are big-endian, so that memcmp orders them.
 *
 *   S name                 single records: "format", "counters", "cluster", "map", "restoring"
 *   I ino                  inode                               (inode-codec.ts)
 *   D parent name          directory entry -> ino, type, cookie
 *   C parent cookie        the same entry by its cookie -> ino, type, name: the order of readdir
 *   L ino                  symlink -> target
 *   X ino name             extended attribute -> value
 *   P ino seq              data to reclaim: seq 0 the whole orphan, else that truncate
 *   Z session              session -> uuid, host, mount point, window of results
 *   U uuid                 client uuid -> session
 *   R session seq          result of that mutation -> CommandResult
 *   N session              inode numbers reserved for it -> ranges
 *   Q kind id              quota -> limits, what counts, how far it has been counted (quota-records.ts)
 *   A session kind id      what a session has reserved of a quota -> bytes, inodes
 *   W ino                  directory whose entries are to be moved to or from a tree -> cookie of the last one moved
 *   F session              expired, and not known yet to be shut out by every chunkserver -> nothing
 */
export const FORMAT_VERSION = 1;

const TAG = {
  S: 0x53,
  I: 0x49,
  D: 0x44,
  C: 0x43,
  L: 0x4c,
  X: 0x58,
  P: 0x50,
  Z: 0x5a,
  U: 0x55,
  R: 0x52,
  N: 0x4e,
  F: 0x46,
  Q: 0x51,
  A: 0x41,
  W: 0x57,
} as const;
/** The letter of a table. */
export type Tag = keyof typeof TAG;

const U64_BYTES = 8;
const U32_RANGE = 0x1_0000_0000;

export const FORMAT_KEY = Buffer.from('Sformat');
export const COUNTERS_KEY = Buffer.from('Scounters');
export const CLUSTER_KEY = Buffer.from('Scluster');
export const MAP_KEY = Buffer.from('Smap');
/** How many records of a snapshot have arrived, while one is being restored. */
export const RESTORING_KEY = Buffer.from('Srestoring');

/** Start (inclusive) and end (exclusive) of a range of keys. */
export interface KeyRange {
  start: Buffer;
  end: Buffer;
}

/** The table that a key belongs to; undefined: none that is known. */
export function tagOfKey(key: Buffer): Tag | undefined {
  const letter = String.fromCharCode(key[0] ?? 0);
  return letter in TAG ? (letter as Tag) : undefined;
}

/** All records of a table. */
export function tableRange(tag: Tag): KeyRange {
  return { start: Buffer.from([TAG[tag]]), end: Buffer.from([TAG[tag] + 1]) };
}

/** Records of a table of which the first number of the key is `from` or above. */
export function tableFrom(tag: Tag, from: number): KeyRange {
  return { start: numberKey(tag, from), end: tableRange(tag).end };
}

/** The number that the key of any table but S and U begins with: of an inode, a directory, a session. */
export function firstNumberOf(key: Buffer): number {
  return readU64(key, 1);
}

/** Of a C or R key: cookie, mutation. */
export function secondNumberOf(key: Buffer): number {
  return readU64(key, 1 + U64_BYTES);
}

/** Of a D key: the entry's name; of an X key: the attribute's. */
export function nameOfKey(key: Buffer): Buffer {
  return key.subarray(1 + U64_BYTES);
}

/** Entries of a directory by name. */
export function dentryRange(parent: number): KeyRange {
  return { start: numberKey('D', parent), end: numberKey('D', parent + 1) };
}

export function inodeKey(ino: number): Buffer {
  return numberKey('I', ino);
}

export function dentryKey(parent: number, name: Buffer): Buffer {
  return numberAndBytesKey('D', parent, name);
}

export function cookieKey(parent: number, cookie: number): Buffer {
  return twoNumbersKey('C', parent, cookie);
}

/** Entries of `parent` with a cookie above `after`. */
export function cookieRange(parent: number, after: number): KeyRange {
  return { start: cookieKey(parent, after + 1), end: numberKey('C', parent + 1) };
}

export function symlinkKey(ino: number): Buffer {
  return numberKey('L', ino);
}

export function xattrKey(ino: number, name: Buffer): Buffer {
  return numberAndBytesKey('X', ino, name);
}

export function xattrRange(ino: number): KeyRange {
  return { start: numberKey('X', ino), end: numberKey('X', ino + 1) };
}

/** In a reclaim key: the truncate number that stands for all of an inode's data. */
export const WHOLE_INODE = 0;

export function reclaimKey(ino: number, truncateSeq: number): Buffer {
  const key = Buffer.allocUnsafe(1 + U64_BYTES + 4);
  key[0] = TAG.P;
  writeU64(key, 1, ino);
  key.writeUInt32BE(truncateSeq, 1 + U64_BYTES);
  return key;
}

/** Everything to reclaim behind (ino, truncateSeq); without them: from the first. */
export function reclaimRange(after?: { ino: number; truncateSeq: number }): KeyRange {
  const start = after ? reclaimKey(after.ino, after.truncateSeq) : Buffer.from('P');
  // The least key above: the same with a zero byte behind.
  return { start: after ? Buffer.concat([start, Buffer.alloc(1)]) : start, end: Buffer.from('Q') };
}

/** What one inode has to reclaim. */
export function reclaimRangeOf(ino: number): KeyRange {
  return { start: numberKey('P', ino), end: numberKey('P', ino + 1) };
}

export function parseReclaimKey(key: Buffer): { ino: number; truncateSeq: number } {
  return { ino: readU64(key, 1), truncateSeq: key.readUInt32BE(1 + U64_BYTES) };
}

export function sessionKey(session: number): Buffer {
  return numberKey('Z', session);
}

export const SESSIONS_RANGE: KeyRange = { start: Buffer.from('Z'), end: Buffer.from('[') };

export function uuidKey(uuid: string): Buffer {
  return Buffer.from(`U${uuid}`);
}

export function resultKey(session: number, seq: number): Buffer {
  return twoNumbersKey('R', session, seq);
}

export function reservedKey(session: number): Buffer {
  return numberKey('N', session);
}

export function fenceKey(session: number): Buffer {
  return numberKey('F', session);
}

export const FENCES_RANGE: KeyRange = { start: Buffer.from('F'), end: Buffer.from('G') };

/** @param kind 0 tree, 1 user, 2 group */
export function quotaKey(kind: number, id: number): Buffer {
  const key = Buffer.allocUnsafe(2 + U64_BYTES);
  key[0] = TAG.Q;
  key[1] = kind;
  writeU64(key, 2, id);
  return key;
}

export function parseQuotaKey(key: Buffer): { kind: number; id: number } {
  return { kind: key[1] as number, id: readU64(key, 2) };
}

export function allotmentKey(session: number, kind: number, id: number): Buffer {
  const key = Buffer.allocUnsafe(2 + 2 * U64_BYTES);
  key[0] = TAG.A;
  writeU64(key, 1, session);
  key[1 + U64_BYTES] = kind;
  writeU64(key, 2 + U64_BYTES, id);
  return key;
}

export function parseAllotmentKey(key: Buffer): { session: number; kind: number; id: number } {
  return { session: readU64(key, 1), kind: key[1 + U64_BYTES] as number, id: readU64(key, 2 + U64_BYTES) };
}

export function treeWalkKey(directory: number): Buffer {
  return numberKey('W', directory);
}

/** Writes an integer of up to 53 bits as 8 bytes, big-endian. */
export function writeU64(target: Buffer, offset: number, value: number): void {
  target.writeUInt32BE(Math.floor(value / U32_RANGE), offset);
  target.writeUInt32BE(value % U32_RANGE, offset + 4);
}

export function readU64(source: Buffer, offset: number): number {
  return source.readUInt32BE(offset) * U32_RANGE + source.readUInt32BE(offset + 4);
}

function numberKey(tag: Tag, number: number): Buffer {
  const key = Buffer.allocUnsafe(1 + U64_BYTES);
  key[0] = TAG[tag];
  writeU64(key, 1, number);
  return key;
}

function twoNumbersKey(tag: Tag, first: number, second: number): Buffer {
  const key = Buffer.allocUnsafe(1 + 2 * U64_BYTES);
  key[0] = TAG[tag];
  writeU64(key, 1, first);
  writeU64(key, 1 + U64_BYTES, second);
  return key;
}

function numberAndBytesKey(tag: Tag, number: number, bytes: Buffer): Buffer {
  const key = Buffer.allocUnsafe(1 + U64_BYTES + bytes.length);
  key[0] = TAG[tag];
  writeU64(key, 1, number);
  bytes.copy(key, 1 + U64_BYTES);
  return key;
}
