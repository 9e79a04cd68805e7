import { spawnSync } from 'node:child_process';

/** f_type of tmpfs (statfs(2)), which is nothing but page cache. */
export const TMPFS_MAGIC = 0x01021994;

/** Bytes of the file that are in the page cache (fincore(1)); undefined where that tool is not installed. */
export function cachedBytes(file: string): number | undefined {
  const found = spawnSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', file]);
  return found.status === 0 ? Number(found.stdout.toString()) : undefined;
}
