import { HoldfastError } from '../../proto/errors.js';
import { NAME_MAX_BYTES, S_ISVTX } from '../../proto/types.js';
import type { Inode } from './inode-codec.js';
import type { Dentry } from './records.js';

const DOT = 0x2e;
const SLASH = 0x2f;
const NUL = 0;

/** 0: an ordinary name; 1: "."; 2: "..". */
export function dots(name: Buffer): 0 | 1 | 2 {
  if (name.length > 2 || name[0] !== DOT) return 0;
  if (name.length === 1) return 1;
  return name[1] === DOT ? 2 : 0;
}

/** @throws HoldfastError ENOENT (empty), ENAMETOOLONG, EINVAL (holds "/" or NUL) */
export function checkName(name: Buffer): void {
  if (name.length === 0) throw new HoldfastError('ENOENT');
  if (name.length > NAME_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
  if (name.includes(SLASH) || name.includes(NUL)) throw new HoldfastError('EINVAL');
}

/**
 * The restricted deletion flag: in a sticky directory only root and the owners of the directory or of the file may remove
 * or rename it (POSIX, unlink and rename: EPERM or EACCES; Linux says EPERM).
 * @throws HoldfastError EPERM
 */
export function checkSticky(directory: Inode, victim: Inode, uid: number): void {
  if (!(directory.mode & S_ISVTX) || uid === 0) return;
  if (uid !== directory.uid && uid !== victim.uid) throw new HoldfastError('EPERM');
}

/**
 * A kernel marks the directory dead that it believes to have removed: it must be that, or nothing is removed.
 * @param taken the directory that the caller takes the name to stand for; undefined: it does not say
 * @throws HoldfastError ESTALE
 */
export function checkTaken(taken: number | undefined, dentry: Dentry | undefined): void {
  if (taken !== undefined && taken !== dentry?.ino) throw new HoldfastError('ESTALE');
}
