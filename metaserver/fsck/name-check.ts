import { TYPE_SHIFT } from '../../proto/types.js';
import { loadInode } from '../namespace/batch.js';
import { type Inode, isDirectory } from '../namespace/inode-codec.js';
import {
  cookieKey,
  dentryKey,
  firstNumberOf,
  inodeKey,
  nameOfKey,
  secondNumberOf,
  tableRange,
} from '../namespace/keys.js';
import {
  type Dentry,
  decodeCookieEntry,
  decodeDentry,
  encodeCookieEntry,
  encodeDentry,
} from '../namespace/records.js';
import type { KvReader } from '../store/kv.js';
import { change, FINDINGS_MAX, type Findings, shown, together } from './findings.js';
import { type Pace, scan } from './scan.js';

/** What the check of names tells the check of inodes. */
export interface Names {
  count: number;
  maxCookie: number;
  /** Entries that lead nowhere, by key: they are not counted as links. */
  readonly invalid: ReadonlySet<string>;
  /** The right types of entries that name a wrong one, by key. */
  readonly types: ReadonlyMap<string, number>;
}

/** The inode of a number, when its record can be read. */
export function readable(view: KvReader, ino: number): Inode | undefined {
  try {
    return loadInode(view, ino);
  } catch {
    return undefined; // reported where inodes are looked at
  }
}

export function keyText(key: Buffer): string {
  return key.toString('latin1');
}

/**
 * Every directory entry leads to an inode of its type from a directory that exists, and stands once in the order of readdir;
 * nothing else stands there. What lookups use (the entry by name) is right where the two disagree.
 */
export async function checkNames(view: KvReader, pace: Pace, findings: Findings): Promise<Names> {
  const invalid = new Set<string>();
  const names = { count: 0, maxCookie: 0, invalid, types: new Map<string, number>() };
  let parent: Inode | undefined;
  let parentIno = -1;
  await scan(view, tableRange('D'), pace, (key, value) => {
    names.count++;
    const ino = firstNumberOf(key);
    if (ino !== parentIno) {
      parentIno = ino;
      parent = readable(view, ino);
    }
    if (checkName(view, parent, key, value, findings, names)) return;
    if (invalid.size < FINDINGS_MAX) invalid.add(keyText(key));
  });
  await scan(view, tableRange('C'), pace, (key, value) => {
    const directory = firstNumberOf(key);
    const cookie = secondNumberOf(key);
    names.maxCookie = Math.max(names.maxCookie, cookie);
    const { name } = decodeCookieEntry(value);
    const entry = name.length > 0 ? view.get(dentryKey(directory, name)) : undefined;
    if (entry && decodeDentry(entry).cookie === cookie) return;
    findings.add({
      kind: 'listing',
      ino: directory,
      text: `directory ${directory} lists ${shown(name)}, which is not in it`,
      repair: change(key, value, undefined),
    });
  });
  return names;
}

/** @returns false when the entry leads nowhere */
function checkName(
  view: KvReader,
  parent: Inode | undefined,
  key: Buffer,
  value: Buffer,
  findings: Findings,
  names: { maxCookie: number; types: Map<string, number> },
): boolean {
  const directory = firstNumberOf(key);
  const name = nameOfKey(key);
  const entry = decodeDentry(value);
  names.maxCookie = Math.max(names.maxCookie, entry.cookie);
  const listed = cookieKey(directory, entry.cookie);
  const listing = view.get(listed);
  const dead = (kind: string, text: string): false => {
    const drop = change(key, value, undefined);
    const ours = listing && decodeCookieEntry(listing).name.equals(name);
    findings.add({
      kind,
      ino: directory,
      text,
      repair: ours ? together(drop, change(listed, listing, undefined)) : drop,
    });
    return false;
  };
  if (!parent || !isDirectory(parent)) {
    return dead('stray-name', `${shown(name)} is a name in inode ${directory}, which is no directory`);
  }
  const inode = readable(view, entry.ino);
  if (!inode && !view.get(inodeKey(entry.ino))) {
    return dead(
      'dangling-name',
      `${shown(name)} in directory ${directory} leads to inode ${entry.ino}, which does not exist`,
    );
  }
  const type = inode ? inode.mode >>> TYPE_SHIFT : entry.type;
  if (type !== entry.type && names.types.size < FINDINGS_MAX) names.types.set(keyText(key), type);
  checkListing(findings, key, value, { ...entry, type }, listed, listing);
  return true;
}

function checkListing(
  findings: Findings,
  key: Buffer,
  value: Buffer,
  right: Dentry,
  listed: Buffer,
  listing: Buffer | undefined,
): void {
  const directory = firstNumberOf(key);
  const name = nameOfKey(key);
  const entry = encodeDentry(right);
  const order = encodeCookieEntry(right.ino, right.type, name);
  if (!entry.equals(value)) {
    findings.add({
      kind: 'name-type',
      ino: directory,
      text: `${shown(name)} in directory ${directory} has not the type of inode ${right.ino}`,
      repair: together(change(key, value, entry), change(listed, listing, order)),
    });
  } else if (!listing?.equals(order)) {
    const foreign = listing && !decodeCookieEntry(listing).name.equals(name);
    findings.add({
      kind: 'listing',
      ino: directory,
      text: `${shown(name)} in directory ${directory} ${foreign ? 'shares its place in the listing' : 'is not listed'}`,
      // A place that another entry has cannot be shared: which of them moves is no matter of one right answer.
      repair: foreign ? undefined : change(listed, listing, order),
    });
  }
}
