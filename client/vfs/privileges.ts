import { readFile } from 'node:fs/promises';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, SetAttr } from '../../proto/gen/meta.js';
import { S_IFDIR, S_IFMT, S_ISGID, S_ISUID } from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller, SetAttrRequest } from '../fuse/binding.js';
import { O_ACCMODE, O_RDONLY, O_TRUNC } from './file-table.js';

const GROUP_EXECUTE = 0o010;

/** Whether a write by one without CAP_FSETID takes something of the mode away, or may. */
export function hasPriv(mode: number): boolean {
  return (mode & (S_ISUID | S_ISGID)) !== 0;
}

/**
 * What a write or truncate by one without CAP_FSETID, or a change of the owner, takes away: setuid, and setgid where the group
 * may execute or the caller is outside the group (setattr_should_drop_sgid() of Linux).
 */
export function killedBy(caller: Caller, attr: Attr): Answer<Pick<SetAttr, 'killPriv' | 'killSgid'>> {
  const setgidAlone = (attr.mode & (S_ISGID | GROUP_EXECUTE)) === S_ISGID;
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
    if (killSgid || (attr.mode & GROUP_EXECUTE) !== 0) throw new HoldfastError('EPERM');
  });
}

/** Requests name the caller's group alone. None when the process is not visible here, or has ended. */
async function supplementaryGroups(pid: number): Promise<number[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const groups = /^Groups:(.*)$/m.exec(status)?.[1]?.trim() ?? '';
  return groups === '' ? [] : groups.split(/\s+/).map(Number);
}

/** A change of the kernel's as the servers are asked for it. */
export function wireChange(change: SetAttrRequest): Partial<SetAttr> {
  const wire: Partial<SetAttr> = {};
  if (change.mode !== undefined) wire.mode = change.mode & 0o7777;
  if (change.uid !== undefined) wire.uid = change.uid;
  if (change.gid !== undefined) wire.gid = change.gid;
  if (change.size !== undefined) wire.size = change.size;
  if (change.atime === 'now') wire.atimeNow = true;
  else if (change.atime) wire.atime = change.atime;
  if (change.mtime === 'now') wire.mtimeNow = true;
  else if (change.mtime) wire.mtime = change.mtime;
  if (change.ctime) wire.ctime = change.ctime;
  // A new owner clears the bits whoever gave it (chown(2)). chown(-1, -1) arrives as a change of nothing.
  const owner = change.uid !== undefined || change.gid !== undefined;
  wire.killPriv = change.killPriv === true || owner || changesNothing(wire);
  return wire;
}

/** @param wire without what it takes away */
export function changesNothing({ killPriv: _, killSgid: __, ...wire }: Partial<SetAttr>): boolean {
  return Object.keys(wire).length === 0;
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
