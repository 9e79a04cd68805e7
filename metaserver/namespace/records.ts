import { readU64, writeU64 } from './keys.js';

/** The small records of the Kv, beside the inode. Durable formats, pinned by tests; integers are big-endian. */

/** One name in a directory. */
export interface Dentry {
  ino: number;
  /** S_IFMT bits of the mode >> 12, as d_type. */
  type: number;
  /** Place in the order of readdir; unique for all time. */
  cookie: number;
}

const DENTRY_BYTES = 17;

/** u64 ino, u8 type, u64 cookie. */
export function encodeDentry(dentry: Dentry): Buffer {
  const bytes = Buffer.allocUnsafe(DENTRY_BYTES);
  writeU64(bytes, 0, dentry.ino);
  bytes[8] = dentry.type;
  writeU64(bytes, 9, dentry.cookie);
  return bytes;
}

export function decodeDentry(bytes: Buffer): Dentry {
  return { ino: readU64(bytes, 0), type: bytes[8] as number, cookie: readU64(bytes, 9) };
}

/** Of the name in the record of a directory entry by its cookie. */
export const COOKIE_ENTRY_NAME_OFFSET = 9;

/** u64 ino, u8 type, name. */
export function encodeCookieEntry(ino: number, type: number, name: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(COOKIE_ENTRY_NAME_OFFSET + name.length);
  writeU64(bytes, 0, ino);
  bytes[8] = type;
  name.copy(bytes, COOKIE_ENTRY_NAME_OFFSET);
  return bytes;
}

/** The name is a copy. */
export function decodeCookieEntry(bytes: Buffer): { ino: number; type: number; name: Buffer } {
  const name = Buffer.from(bytes.subarray(COOKIE_ENTRY_NAME_OFFSET));
  return { ino: readU64(bytes, 0), type: bytes[8] as number, name };
}

/** Data that the chunkservers are to drop: [from, size) of a file. */
export interface ReclaimRecord {
  from: number;
  size: number;
  chunkSize: number;
}

const RECLAIM_BYTES = 20;

/** u64 from, u64 size, u32 chunk size. */
export function encodeReclaim(record: ReclaimRecord): Buffer {
  const bytes = Buffer.allocUnsafe(RECLAIM_BYTES);
  writeU64(bytes, 0, record.from);
  writeU64(bytes, 8, record.size);
  bytes.writeUInt32BE(record.chunkSize, 16);
  return bytes;
}

export function decodeReclaim(bytes: Buffer): ReclaimRecord {
  return { from: readU64(bytes, 0), size: readU64(bytes, 8), chunkSize: bytes.readUInt32BE(16) };
}

const WANTS_LEASES = 1;

/** A client's session, and the window of mutations whose results are kept. */
export interface Session {
  id: number;
  clientUuid: string;
  hostname: string;
  mountPoint: string;
  /** What only one running mount at a time has; empty: unknown. */
  place: string;
  wantsLeases: boolean;
  /** Results of all mutations below are forgotten; those of [forgottenBelow, maxSeq] are stored, if they ran. */
  forgottenBelow: number;
  /** Highest mutation that ran. */
  maxSeq: number;
}

/**
 * u64 forgotten below, u64 max seq, then uuid, hostname and mount point, each u16 bytes and UTF-8, u8 flags (absent: 0),
 * place like the other texts (absent: empty).
 */
export function encodeSession(session: Session): Buffer {
  const numbers = Buffer.allocUnsafe(16);
  writeU64(numbers, 0, session.forgottenBelow);
  writeU64(numbers, 8, session.maxSeq);
  const parts = [numbers];
  const addText = (text: string): void => {
    const bytes = Buffer.from(text);
    const length = Buffer.allocUnsafe(2);
    length.writeUInt16BE(bytes.length);
    parts.push(length, bytes);
  };
  for (const text of [session.clientUuid, session.hostname, session.mountPoint]) addText(text);
  parts.push(Buffer.from([session.wantsLeases ? WANTS_LEASES : 0]));
  if (session.place !== '') addText(session.place);
  return Buffer.concat(parts);
}

export function decodeSession(id: number, bytes: Buffer): Session {
  let at = 16;
  const text = (): string => {
    const end = at + 2 + bytes.readUInt16BE(at);
    const value = bytes.toString('utf8', at + 2, end);
    at = end;
    return value;
  };
  const [clientUuid, hostname, mountPoint] = [text(), text(), text()];
  const flags = bytes[at++] ?? 0;
  const place = at < bytes.length ? text() : '';
  return {
    id,
    clientUuid,
    hostname,
    mountPoint,
    place,
    wantsLeases: (flags & WANTS_LEASES) !== 0,
    forgottenBelow: readU64(bytes, 0),
    maxSeq: readU64(bytes, 8),
  };
}

/** Numbers of which there is one each; written with every batch of commands. */
export interface Counters {
  /** Raft index of the last command applied. */
  applied: number;
  nextIno: number;
  nextSession: number;
  nextCookie: number;
  /** Inodes that exist, orphans included. */
  inodes: number;
  orphans: number;
  /** Sum of all inodes' allocated bytes. */
  allocated: number;
}

const COUNTER_FIELDS = [
  'applied',
  'nextIno',
  'nextSession',
  'nextCookie',
  'inodes',
  'orphans',
  'allocated',
] as const satisfies (keyof Counters)[];

/** The fields above as u64, in that order. */
export function encodeCounters(counters: Counters): Buffer {
  const bytes = Buffer.allocUnsafe(COUNTER_FIELDS.length * 8);
  for (const [index, field] of COUNTER_FIELDS.entries()) writeU64(bytes, index * 8, counters[field]);
  return bytes;
}

export function decodeCounters(bytes: Buffer): Counters {
  const counters = {} as Counters;
  for (const [index, field] of COUNTER_FIELDS.entries()) counters[field] = readU64(bytes, index * 8);
  return counters;
}
