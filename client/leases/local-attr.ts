import type { Attr, MakeNode, SetAttr, Time } from '../../proto/gen/meta.js';
import { inheritedFlags } from '../../proto/inode-flags.js';
import {
  DIRECTORY_SIZE_BYTES,
  HAS_ACCESS_ACL,
  PERMISSION_BITS,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
  SYMLINK_MODE,
} from '../../proto/types.js';
import { copyOfAttr } from '../attr-copy.js';
import { later } from '../times.js';

/**
 * What the metaserver will make of a change, foretold: metaserver/namespace is the authority, and tests hold the two
 * together. Pure.
 */

/** A new inode in `parent`. @param chunkSize the cluster's, for regular files */
export function newAttr(parent: Attr, node: MakeNode, ino: number, time: Time, chunkSize: number): Attr {
  const type = node.mode & S_IFMT;
  const directory = type === S_IFDIR;
  const inherits = (parent.mode & S_ISGID) !== 0;
  const permissions = (node.mode & PERMISSION_BITS) | (directory && inherits ? S_ISGID : 0);
  return {
    ino,
    generation: 1,
    mode: type === S_IFLNK ? SYMLINK_MODE : type | permissions,
    nlink: directory ? 2 : 1,
    uid: node.uid,
    gid: inherits ? parent.gid : node.gid,
    rdev: 0,
    size: directory ? DIRECTORY_SIZE_BYTES : type === S_IFLNK ? node.target.length : 0,
    allocated: 0,
    atime: time,
    mtime: time,
    ctime: time,
    birth: time,
    chunkSize: type === S_IFREG ? chunkSize : 0,
    truncateSeq: 0,
    truncates: [],
    change: 1,
    xattrKinds: 0,
    hasXattrs: false,
    project: parent.project,
    flags: inheritedFlags(parent),
  };
}

/** A directory whose names changed. */
export function changedDirectory(attr: Attr, time: Time, links: number): Attr {
  const after = copyOfAttr(attr);
  after.mtime = time;
  after.ctime = later(attr.ctime, time);
  after.nlink += links;
  after.change++;
  return after;
}

/** An inode that lost so many names (-1: gained one), or whose name changed. */
export function renamed(attr: Attr, time: Time, lostLinks: number): Attr {
  const after = copyOfAttr(attr);
  after.ctime = later(attr.ctime, time);
  after.nlink -= lostLinks;
  after.change++;
  return after;
}

/** Whether the change is one that can be foretold: no size, no privilege bits to take away, no ACL that follows a mode. */
export function canForetell(attr: Attr, change: Partial<SetAttr>): boolean {
  const { mode, uid, gid, atime, mtime, ctime, atimeNow, mtimeNow } = change;
  if (change.size !== undefined) return false;
  if (mode !== undefined && ((attr.xattrKinds ?? 0) & HAS_ACCESS_ACL) !== 0) return false;
  const some = mode ?? uid ?? gid ?? atime ?? mtime ?? ctime;
  if (some === undefined && !atimeNow && !mtimeNow) return false;
  if ((attr.mode & S_IFMT) === S_IFLNK && change.mode !== undefined) return false;
  return !(change.killPriv && (attr.mode & (S_ISUID | S_ISGID)) !== 0 && (attr.mode & S_IFMT) !== S_IFDIR);
}

/** chmod, chown, utimes. */
export function changedAttr(attr: Attr, change: Partial<SetAttr>, time: Time): Attr {
  const atime = change.atimeNow ? time : change.atime;
  const mtime = change.mtimeNow ? time : change.mtime;
  const changes =
    change.mode !== undefined ||
    change.uid !== undefined ||
    change.gid !== undefined ||
    atime ||
    mtime ||
    change.ctime;
  if (!changes) return attr;
  const after = copyOfAttr(attr);
  if (change.mode !== undefined) after.mode = (attr.mode & S_IFMT) | (change.mode & PERMISSION_BITS);
  after.uid = change.uid ?? attr.uid;
  after.gid = change.gid ?? attr.gid;
  after.atime = atime ?? attr.atime;
  after.mtime = mtime ?? attr.mtime;
  after.ctime = later(attr.ctime, change.ctime ?? time);
  after.change++;
  return after;
}
