import { CAN_PACK, DirRowsWriter } from '../../proto/dir-rows.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, DirEntry, DirPage, Lookup, ReadDir } from '../../proto/gen/meta.js';
import { NAME_MAX_BYTES, S_IFLNK, S_IFMT } from '../../proto/types.js';
import type { KvReader } from '../store/kv.js';
import { loadDentry, loadInode } from './batch.js';
import { attrOf, decodeInode, type Inode, isDirectory } from './inode-codec.js';
import { cookieRange, inodeKey, readU64, symlinkKey } from './keys.js';
import { dots } from './names.js';
import { COOKIE_ENTRY_NAME_OFFSET, decodeCookieEntry } from './records.js';

/** Entries of one page; with names of 255 bytes and attributes it stays below 2 MiB. */
export const MAX_READDIR_ENTRIES = 4096;
const COOKIE_OFFSET = 9;

/** @throws HoldfastError ENOENT */
export function readInode(kv: KvReader, ino: number): Inode {
  const inode = loadInode(kv, ino);
  if (!inode) throw new HoldfastError('ENOENT');
  return inode;
}

function readDirectory(kv: KvReader, ino: number): Inode {
  const inode = readInode(kv, ino);
  if (!isDirectory(inode)) throw new HoldfastError('ENOTDIR');
  return inode;
}

/** The inode behind a name. "." is the inode itself, whatever its type (NFS file handles are resolved so). */
export function lookup(kv: KvReader, op: Lookup): Inode {
  if (dots(op.name) === 1) return readInode(kv, op.parent);
  const parent = readDirectory(kv, op.parent);
  if (dots(op.name) === 2) return readInode(kv, parent.parent);
  if (op.name.length > NAME_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
  const dentry = op.name.length > 0 ? loadDentry(kv, parent.ino, op.name) : undefined;
  if (!dentry) throw new HoldfastError('ENOENT');
  return readInode(kv, dentry.ino);
}

/**
 * A page of the directory behind `cookie` (0: from its start), without "." and "..". An entry keeps its cookie while it
 * lives, and new ones come last: whoever reads page by page meets every entry that is there all the while exactly once.
 */
export function readDir(kv: KvReader, op: ReadDir): DirPage {
  const directory = readDirectory(kv, op.ino);
  const most = Math.min(op.maxEntries || MAX_READDIR_ENTRIES, MAX_READDIR_ENTRIES);
  const { start, end } = cookieRange(directory.ino, op.cookie);
  if (op.plus && op.packed && CAN_PACK) return readPacked(kv, op, directory, most);
  const entries: DirEntry[] = [];
  let more = false;
  for (const { key, value } of kv.range(start, end, { limit: most + 1 })) {
    more = entries.length === most;
    if (more) break;
    entries.push({ ...decodeCookieEntry(value), cookie: readU64(key, COOKIE_OFFSET), attr: undefined });
  }
  if (op.plus) for (const entry of entries) entry.attr = attrOf(readInode(kv, entry.ino));
  const attr = op.want === undefined ? undefined : attrOf(directory);
  return { entries, end: !more, parent: directory.parent, attr };
}

/** The same as rows. */
function readPacked(kv: KvReader, op: ReadDir, directory: Inode, most: number): DirPage {
  const { start, end } = cookieRange(directory.ino, op.cookie);
  const writer = new DirRowsWriter(Math.min(most, directory.entries));
  let more = false;
  for (const { key, value } of kv.range(start, end, { limit: most + 1 })) {
    more = writer.count === most;
    if (more) break;
    writer.add(
      readU64(value, 0),
      value[8] as number,
      readU64(key, COOKIE_OFFSET),
      value,
      COOKIE_ENTRY_NAME_OFFSET,
    );
  }
  const others: Attr[] = [];
  for (let row = 0; row < writer.count; row++) {
    const ino = writer.ino(row);
    const record = kv.peek(inodeKey(ino));
    if (!record) throw new HoldfastError('ENOENT');
    const inode = decodeInode(ino, record);
    writer.setAttr(row, inode, inode.xattrBytes > 0);
    if (inode.truncates.length > 0 || inode.project !== 0) others.push(attrOf(inode));
  }
  const attr = op.want === undefined ? undefined : attrOf(directory);
  const packed = { rows: writer.finish(), others };
  return { entries: [], end: !more, parent: directory.parent, attr, packed };
}

/** @throws HoldfastError EINVAL when it is no symlink */
export function readLink(kv: KvReader, ino: number): Buffer {
  const inode = readInode(kv, ino);
  const target = (inode.mode & S_IFMT) === S_IFLNK ? kv.get(symlinkKey(ino)) : undefined;
  if (!target) throw new HoldfastError('EINVAL');
  return Buffer.from(target);
}
