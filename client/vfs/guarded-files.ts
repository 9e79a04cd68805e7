import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { isAppendOnly, isGuarded, isImmutable } from '../../proto/inode-flags.js';
import type { WriteRequest } from '../fuse/binding.js';
import { type FileTable, O_ACCMODE, O_APPEND, O_RDONLY, O_TRUNC, type OpenFile } from './file-table.js';

/** What a mount decides by itself of immutable and append-only files: opens and contents. The rest is the servers' to refuse. */

/** @throws HoldfastError EPERM */
export function checkMayOpen(attr: Attr, flags: number): void {
  if (!isGuarded(attr)) return;
  const writes = (flags & O_ACCMODE) !== O_RDONLY;
  const truncates = (flags & O_TRUNC) !== 0;
  const anywhere = (writes && (flags & O_APPEND) === 0) || truncates;
  if (isImmutable(attr) ? writes || truncates : anywhere) throw new HoldfastError('EPERM');
}

/**
 * A description that was opened for writing anywhere before its file was append-only goes on so, as on ext4; one that was
 * opened to append does not become such a one, nor do mappings through it.
 * @throws HoldfastError EPERM
 */
export function checkMayWrite(
  open: OpenFile,
  { flags, fromCache }: Pick<WriteRequest, 'flags' | 'fromCache'>,
  files: FileTable,
): void {
  const { file } = open;
  if (!isGuarded(file)) return;
  if (isImmutable(file)) throw new HoldfastError('EPERM');
  const appends = fromCache ? !files.writesAnywhere(file.ino) : (open.flags & O_APPEND) !== 0;
  if (appends && (fromCache || (flags & O_APPEND) === 0)) throw new HoldfastError('EPERM');
}

/** Before the contents are cut, or a range of them is discarded. @throws HoldfastError EPERM */
export function checkMayCut(attr: { flags?: number | undefined } | undefined): void {
  if (attr && isGuarded(attr)) throw new HoldfastError('EPERM');
}

/** fallocate(2) without a mode only adds. @throws HoldfastError EPERM */
export function checkMayAllocate(file: { flags?: number | undefined }, discards: boolean): void {
  if (isImmutable(file) || (discards && isAppendOnly(file))) throw new HoldfastError('EPERM');
}
