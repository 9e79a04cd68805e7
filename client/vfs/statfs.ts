import { NAME_MAX_BYTES } from '../../proto/types.js';
import type { StatFs } from '../fuse/binding.js';
import { type MetaApi, resultOf } from '../meta/api.js';
import type { Interrupt } from '../wait.js';

const BLOCK_BYTES = 4096;

/** statfs(2), as seen from an inode. */
export async function statfs(meta: MetaApi, ino: number, signal: Interrupt): Promise<StatFs> {
  const result = await meta.read({ $case: 'statFs', value: { ino } }, signal);
  const { totalBytes, freeBytes, availBytes, inodesUsed, inodesFree } = resultOf(result, 'statFs');
  return {
    blockSize: BLOCK_BYTES,
    blocks: Math.floor(totalBytes / BLOCK_BYTES),
    free: Math.floor(freeBytes / BLOCK_BYTES),
    available: Math.floor(availBytes / BLOCK_BYTES),
    files: inodesUsed + inodesFree,
    filesFree: inodesFree,
    nameMax: NAME_MAX_BYTES,
  };
}
