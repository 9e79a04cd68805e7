import fs from 'node:fs/promises';
import path from 'node:path';
import { type Clock, systemClock } from '../../common/clock.js';
import { runTool } from './tool.js';

/** Why a mount cannot be made; `message` is one line for the user. */
export type MountProblem =
  | 'no-device'
  | 'no-permission'
  | 'missing'
  | 'not-a-directory'
  | 'not-empty'
  | 'mounted'
  | 'stale'
  | 'no-library'
  | 'failed';

/** A mount that cannot be made. */
export class MountError extends Error {
  override name = 'MountError';

  constructor(
    readonly problem: MountProblem,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** One line of /proc/self/mountinfo. */
export interface MountInfo {
  mountPoint: string;
  /** Minor device number: for FUSE the number of the connection. */
  deviceMajor: number;
  deviceMinor: number;
  /** fuse, fuse.holdfast, ext4, ... */
  type: string;
  source: string;
}

const STAT_TIMEOUT_MS = 5_000;
const UMOUNT_TIMEOUT_MS = 10_000;

/** Decodes \040 and the other octal escapes of /proc/self/mountinfo. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Parses /proc/self/mountinfo (proc(5)); later lines lie on top of earlier ones with the same mount point. */
export function parseMountInfo(text: string): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [major, minor] = (fields[2] ?? '').split(':').map(Number);
    if (separator < 0 || major === undefined || minor === undefined) continue;
    mounts.push({
      mountPoint: decodeOctal(fields[4] ?? ''),
      deviceMajor: major,
      deviceMinor: minor,
      type: fields[separator + 1] ?? '',
      source: decodeOctal(fields[separator + 2] ?? ''),
    });
  }
  return mounts;
}

/**
 * The topmost mount at exactly this path, without touching the mount itself.
 * @param mountPoint absolute and canonical
 */
export async function findMount(mountPoint: string): Promise<MountInfo | undefined> {
  const mounts = parseMountInfo(await fs.readFile('/proc/self/mountinfo', 'utf8'));
  return mounts.findLast((mount) => mount.mountPoint === mountPoint);
}

/** The absolute path with symbolic links in its parents resolved; the last component is not looked at. */
export async function canonicalMountPoint(mountPoint: string): Promise<string> {
  const absolute = path.resolve(mountPoint);
  if (absolute === '/') return absolute;
  const parent = await fs.realpath(path.dirname(absolute)).catch((error: unknown) => {
    throw new MountError('missing', `mount point ${mountPoint}: no such directory`, { cause: error });
  });
  return path.join(parent, path.basename(absolute));
}

/**
 * Whether a FUSE mount is there whose process has died ("Transport endpoint is not connected"). The mount is touched
 * by a child process only, so that a hanging one cannot block this process.
 */
export async function isStaleMount(mountPoint: string, clock: Clock = systemClock): Promise<boolean> {
  const canonical = await canonicalMountPoint(mountPoint);
  const mount = await findMount(canonical);
  if (!mount?.type.startsWith('fuse')) return false;
  // Attributes may come from the kernel's cache; statfs always asks the process.
  const result = await runTool(clock, 'stat', ['-f', '-c', '%i', '--', canonical], STAT_TIMEOUT_MS);
  return result.code !== 0 && /not connected|software caused connection abort/i.test(result.stderr);
}

/**
 * Takes away what a killed process left: detaches mounts of dead FUSE connections at this path.
 * @returns whether there was one
 * @throws MountError when it cannot be detached
 */
export async function clearStaleMount(mountPoint: string, clock: Clock = systemClock): Promise<boolean> {
  const canonical = await canonicalMountPoint(mountPoint);
  let cleared = false;
  while (await isStaleMount(canonical, clock)) {
    const umount = await runTool(clock, 'umount', ['-i', '-c', '-l', canonical], UMOUNT_TIMEOUT_MS);
    const done =
      umount.code === 0
        ? umount
        : await runTool(clock, 'fusermount3', ['-u', '-z', canonical], UMOUNT_TIMEOUT_MS);
    if (done.code !== 0) {
      throw new MountError('stale', `${mountPoint}: a dead mount cannot be removed: ${umount.stderr.trim()}`);
    }
    cleared = true;
  }
  return cleared;
}

/**
 * Whether a file system may be mounted there: an empty directory that is no mount point yet.
 * @returns the canonical path
 * @throws MountError with one line that says what is wrong
 */
export async function checkMountPoint(mountPoint: string, clock: Clock = systemClock): Promise<string> {
  const canonical = await canonicalMountPoint(mountPoint);
  const mount = await findMount(canonical);
  if (mount) {
    if (await isStaleMount(canonical, clock)) {
      const hint = `left by a process that was killed; remove it with: umount -l ${mountPoint}`;
      throw new MountError('stale', `mount point ${mountPoint}: a dead mount is there, ${hint}`);
    }
    throw new MountError('mounted', `mount point ${mountPoint}: ${mount.source} is already mounted there`);
  }
  let names: string[];
  try {
    const stats = await fs.lstat(canonical);
    if (stats.isSymbolicLink()) return await checkMountPoint(await fs.realpath(canonical), clock);
    if (!stats.isDirectory()) {
      throw new MountError('not-a-directory', `mount point ${mountPoint}: not a directory`);
    }
    names = await fs.readdir(canonical);
  } catch (error) {
    if (error instanceof MountError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') {
      throw new MountError('missing', `mount point ${mountPoint}: no such directory`, { cause: error });
    }
    if (code === 'ENOTDIR') {
      throw new MountError('not-a-directory', `mount point ${mountPoint}: not a directory`, { cause: error });
    }
    throw new MountError('failed', `mount point ${mountPoint}: ${String(code ?? error)}`, { cause: error });
  }
  if (names.length > 0) {
    throw new MountError('not-empty', `mount point ${mountPoint}: the directory is not empty`);
  }
  return canonical;
}
