import { readFile } from 'node:fs/promises';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, SetAttr } from '../../proto/gen/meta.js';
import { PERMISSION_BITS, S_IFDIR, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller, SetAttrRequest } from '../fuse/binding.js';
import { O_ACCMODE, O_RDONLY, O_TRUNC } from './file-table.js';

/** Whether a write by one without CAP_FSETID takes something of the mode away, or may. */
export function hasPriv(mode: number): boolean {
  return (mode & (S_ISUID | S_ISGID)) !== 0;
}

/**
 * What a write or truncate by one without CAP_FSETID, or a change of the owner, takes away: setuid, and setgid where the group
 * may execute or the caller is outside the group (setattr_should_drop_sgid() of Linux).
 */
export function killedBy(caller: Caller, attr: Attr): Answer<Pick<SetAttr, 'killPriv' | 'killSgid'>> {
  const setgidAlone = (attr.mode & (S_ISGID | S_IXGRP)) === S_ISGID;
  const asked = setgidAlone && caller.gid !== attr.gid && caller.uid !== 0;
  if (!asked) return { killPriv: true, killSgid: false };
  return supplementaryGroups(caller.pid).then((groups) => {
    return { killPriv: true, killSgid: !groups.includes(attr.gid) };
  });
}

/**
 * chown(-1, -1) arrives as a change of nothing, which the kernel allows everybody: by others than the owner it may change the
 * ctime, but take no bits away.
 * @throws HoldfastError EPERM
 */
export function checkChangeOfNothing(caller: Caller, attr: Attr): Answer<void> {
  if (caller.uid === 0 || caller.uid === attr.uid || (attr.mode & S_IFMT) === S_IFDIR) return;
  if ((attr.mode & S_ISUID) !== 0) throw new HoldfastError('EPERM');
  if ((attr.mode & S_ISGID) === 0) return;
  return andThen(killedBy(caller, attr), ({ killSgid }) => {
    if (killSgid || (attr.mode & S_IXGRP) !== 0) throw new HoldfastError('EPERM');
  });
}

/** proc_pid_status(5); empty when the process is not visible here, or has ended. */
export function processStatus(pid: number): Promise<string> {
  return readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
}

/** Requests name the caller's group alone. None when the process is not visible here, or has ended. */
async function supplementaryGroups(pid: number): Promise<number[]> {
  const groups = /^Groups:(.*)$/m.exec(await processStatus(pid))?.[1]?.trim() ?? '';
  return groups === '' ? [] : groups.split(/\s+/).map(Number);
}

/** A change of the kernel's as the servers are asked for it, but for the size. All fields are there: one shape is quick. */
export function wireChange(change: SetAttrRequest): WireChange {
  const { mode, uid, gid, atime, mtime } = change;
  // A new owner clears the bits whoever gave it (chown(2)). chown(-1, -1) arrives as a change of nothing.
  const killPriv =
    change.killPriv === true || uid !== undefined || gid !== undefined || changesNothing(change);
  return {
    mode: mode === undefined ? undefined : mode & PERMISSION_BITS,
    uid,
    gid,
    atime: atime === 'now' ? undefined : atime,
    mtime: mtime === 'now' ? undefined : mtime,
    ctime: change.ctime,
    atimeNow: atime === 'now',
    mtimeNow: mtime === 'now',
    killPriv,
    killSgid: undefined,
  };
}

/** What wireChange() makes of a request. */
export type WireChange = Pick<
  SetAttr,
  'mode' | 'uid' | 'gid' | 'atime' | 'mtime' | 'ctime' | 'atimeNow' | 'mtimeNow' | 'killPriv' | 'killSgid'
>;

/** Whether a request names nothing to change: chown(-1, -1). */
export function changesNothing({ mode, uid, gid, size, atime, mtime, ctime }: SetAttrRequest): boolean {
  return (mode ?? uid ?? gid ?? size ?? atime ?? mtime ?? ctime) === undefined;
}

/**
 * The kernel allowed a create; when it met a file that somebody else made meanwhile, nobody has checked that file's
 * permissions. Supplementary groups are not known here: they count as others.
 * @throws HoldfastError EACCES
 */
export function checkAccess(attr: Attr, caller: Caller, flags: number): void {
  if (caller.uid === 0) return;
  const shift = caller.uid === attr.uid ? 6 : caller.gid === attr.gid ? 3 : 0;
  const allowed = (attr.mode >> shift) & 7;
  const access = flags & O_ACCMODE;
  const wanted = (access === O_RDONLY ? 4 : access === 1 ? 2 : 6) | ((flags & O_TRUNC) === 0 ? 0 : 2);
  if ((allowed & wanted) !== wanted) throw new HoldfastError('EACCES');
}
