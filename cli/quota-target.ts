import { execFile } from 'node:child_process';
import { open, readFile, realpath } from 'node:fs/promises';
import { promisify } from 'node:util';
import { parseMountInfo } from '../client/fuse/mount-point.js';
import { QuotaKind } from '../proto/gen/meta.js';
import { CliError, oneLine } from './output.js';

/** What a quota is for: by number, or by a path in the cluster. */
export interface QuotaTarget {
  kind: QuotaKind;
  /** Inode of the directory, uid, gid; 0: the path says which. */
  id: number;
  /** In the cluster, from its root. */
  path?: string;
  /** For people. */
  name: string;
}

export interface TargetFlags {
  user?: string;
  group?: string;
}

const FS_NAME = 'holdfast';
const ID_MAX = 2 ** 32 - 2;
const UNITS = 'KMGTP';
const BYTE_STEP = 1024;
const INODE_STEP = 1000;
const LIMIT_MAX = 2 ** 52;

/** @throws CliError unless exactly one of a path, a user and a group is named */
export async function targetOf(path: string | undefined, flags: TargetFlags): Promise<QuotaTarget> {
  const target = await optionalTargetOf(path, flags);
  if (!target) throw new CliError('name a directory, or a user with --user, or a group with --group');
  return target;
}

/** As targetOf; undefined: nothing was named. @throws CliError when several are */
export async function optionalTargetOf(
  path: string | undefined,
  { user, group }: TargetFlags,
): Promise<QuotaTarget | undefined> {
  const given = [path, user, group].filter((one) => one !== undefined);
  if (given.length > 1) throw new CliError('give one of a directory, --user and --group, not several');
  if (user !== undefined)
    return { kind: QuotaKind.QUOTA_USER, id: await ownerId('passwd', user), name: `user ${user}` };
  if (group !== undefined)
    return { kind: QuotaKind.QUOTA_GROUP, id: await ownerId('group', group), name: `group ${group}` };
  return path === undefined ? undefined : directory(path);
}

/** A directory below a mount of this machine, else a path in the cluster. */
async function directory(path: string): Promise<QuotaTarget> {
  const kind = QuotaKind.QUOTA_TREE;
  const real = await realpath(path).catch(() => undefined);
  const ino = real === undefined ? undefined : await mountedInode(real);
  if (ino !== undefined) return { kind, id: ino, name: path };
  if (path.startsWith('/')) return { kind, id: 0, path, name: path };
  throw new CliError(
    `'${path}' is not below a mount of the cluster: name a mounted directory, or a path in the cluster that begins with /`,
  );
}

/** @returns undefined when the path is on another file system */
async function mountedInode(path: string): Promise<number | undefined> {
  const mounts = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  const above = mounts.filter(({ mountPoint }) => isBelow(path, mountPoint));
  const mount = above.reduce<(typeof above)[number] | undefined>(
    (best, one) => (best && best.mountPoint.length > one.mountPoint.length ? best : one),
    undefined,
  );
  if (!mount?.type.startsWith('fuse') || mount.source !== FS_NAME) return undefined;
  try {
    const handle = await open(path);
    try {
      // What was made here a moment ago is where the metaservers see it.
      await handle.sync();
      const stat = await handle.stat();
      if (!stat.isDirectory()) throw new CliError(`'${path}' is no directory`);
      return stat.ino;
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError(`cannot look at ${path}: ${oneLine(error)}`);
  }
}

function isBelow(path: string, mountPoint: string): boolean {
  return mountPoint === '/' || path === mountPoint || path.startsWith(`${mountPoint}/`);
}

/** A number, or a name that this machine knows. */
async function ownerId(database: 'passwd' | 'group', text: string): Promise<number> {
  const what = database === 'passwd' ? 'user' : 'group';
  if (/^\d+$/.test(text)) {
    const id = Number(text);
    if (id <= ID_MAX) return id;
    throw new CliError(`--${what}: ${text} is above ${ID_MAX}, the largest number of a ${what}`);
  }
  try {
    const { stdout } = await promisify(execFile)('getent', [database, '--', text]);
    const id = Number(stdout.split(':')[2]);
    if (Number.isInteger(id)) return id;
  } catch {
    // it does not know the name
  }
  throw new CliError(`--${what}: this machine knows no ${what} '${text}'; give the number`);
}

/** "10G": bytes, in powers of 1024. "none": 0. @throws CliError */
export function parseBytes(text: string): number {
  return parseLimit('--bytes', text, BYTE_STEP, 'a size such as 500M, 10G or 1.5T');
}

/** "1M": a number, in powers of 1000. "none": 0. @throws CliError */
export function parseInodes(text: string): number {
  return parseLimit('--inodes', text, INODE_STEP, 'a number such as 5000, 20K or 1M');
}

function parseLimit(flag: string, text: string, step: number, example: string): number {
  if (text === 'none') return 0;
  const match = /^(\d{1,16}(?:\.\d{1,6})?)([KMGTP]?)(?:iB)?$/i.exec(text);
  const unit = match?.[2] ? UNITS.indexOf(match[2].toUpperCase()) + 1 : 0;
  const value = match ? Math.floor(Number(match[1]) * step ** unit) : Number.NaN;
  if (!match || value < 1 || value > LIMIT_MAX)
    throw new CliError(`${flag}: '${text}' is not ${example}, or none`);
  return value;
}
