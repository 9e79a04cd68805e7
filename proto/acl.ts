import { HoldfastError } from './errors.js';
import { ACL_ACCESS_NAME, ACL_DEFAULT_NAME } from './types.js';

/**
 * POSIX access control lists, as acl(5) describes them and linux/posix_acl_xattr.h lays them out: u32 version, then for
 * each entry u16 tag, u16 permissions, u32 id, little-endian; entries by tag, those of one tag as they were given.
 */
export interface AclEntry {
  tag: number;
  permissions: number;
  id: number;
}

export type Acl = readonly AclEntry[];

const VERSION = 2;
const HEADER_BYTES = 4;
const ENTRY_BYTES = 8;
const NO_ID = 0xffff_ffff;
const Tag = { USER_OBJ: 1, USER: 2, GROUP_OBJ: 4, GROUP: 8, MASK: 16, OTHER: 32 } as const;

export const ACL_ACCESS = Buffer.from(ACL_ACCESS_NAME);
export const ACL_DEFAULT = Buffer.from(ACL_DEFAULT_NAME);

/** @throws HoldfastError EINVAL when it is none: layout, tags, order, a missing entry, a named one without a mask */
export function decodeAcl(value: Buffer): Acl {
  const entries: AclEntry[] = [];
  if (value.length < HEADER_BYTES || value.readUInt32LE(0) !== VERSION) throw new HoldfastError('EINVAL');
  if ((value.length - HEADER_BYTES) % ENTRY_BYTES !== 0) throw new HoldfastError('EINVAL');
  for (let at = HEADER_BYTES; at < value.length; at += ENTRY_BYTES) {
    const tag = value.readUInt16LE(at);
    const named = tag === Tag.USER || tag === Tag.GROUP;
    const id = named ? value.readUInt32LE(at + 4) : NO_ID;
    entries.push({ tag, permissions: value.readUInt16LE(at + 2), id });
  }
  check(entries);
  return entries;
}

function check(acl: Acl): void {
  const count = (tag: number): number => acl.filter((entry) => entry.tag === tag).length;
  const once = [Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER].every((tag) => count(tag) === 1);
  const named = count(Tag.USER) + count(Tag.GROUP) > 0;
  const masked = count(Tag.MASK) === 1 || (count(Tag.MASK) === 0 && !named);
  const ordered = acl.every((entry, i) => i === 0 || (acl[i - 1] as AclEntry).tag <= entry.tag);
  const known = Object.values(Tag) as number[];
  const valid = acl.every(({ tag, permissions }) => known.includes(tag) && permissions <= 7);
  if (!once || !masked || !ordered || !valid) throw new HoldfastError('EINVAL');
}

export function encodeAcl(acl: Acl): Buffer {
  const value = Buffer.allocUnsafe(HEADER_BYTES + acl.length * ENTRY_BYTES);
  value.writeUInt32LE(VERSION, 0);
  for (const [index, { tag, permissions, id }] of acl.entries()) {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    value.writeUInt16LE(tag, at);
    value.writeUInt16LE(permissions, at + 2);
    value.writeUInt32LE(id, at + 4);
  }
  return value;
}

/** Says no more than nine mode bits do. */
export function isMinimal(acl: Acl): boolean {
  return acl.length === 3;
}

/** The nine bits that stat(2) shows: the mask, where there is one, stands for the group. */
export function modeOfAcl(acl: Acl): number {
  const group = acl.find(({ tag }) => tag === Tag.MASK) ?? find(acl, Tag.GROUP_OBJ);
  return (
    (find(acl, Tag.USER_OBJ).permissions << 6) | (group.permissions << 3) | find(acl, Tag.OTHER).permissions
  );
}

/** After chmod(2): owner, mask (or, without one, group) and others take their part of the mode. */
export function chmodAcl(acl: Acl, mode: number): Acl {
  return change(acl, (_old, bits) => bits, mode);
}

/**
 * The list that a new inode takes from its directory's default one: each of the three classes has no more than was
 * asked for. The umask has no say (umask(2)).
 */
export function inheritAcl(defaults: Acl, askedMode: number): Acl {
  return change(defaults, (old, bits) => old & bits, askedMode);
}

function change(acl: Acl, combine: (old: number, bits: number) => number, mode: number): Acl {
  const groupTag = acl.some(({ tag }) => tag === Tag.MASK) ? Tag.MASK : Tag.GROUP_OBJ;
  return acl.map((entry) => {
    const { tag, permissions } = entry;
    const shift = tag === Tag.USER_OBJ ? 6 : tag === groupTag ? 3 : tag === Tag.OTHER ? 0 : undefined;
    return shift === undefined ? entry : { ...entry, permissions: combine(permissions, (mode >> shift) & 7) };
  });
}

function find(acl: Acl, tag: number): AclEntry {
  const entry = acl.find((each) => each.tag === tag);
  if (!entry) throw new HoldfastError('EINVAL');
  return entry;
}
