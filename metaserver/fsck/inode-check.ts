import { ROOT_INO, S_IFDIR, S_IFLNK, S_IFMT, TYPE_SHIFT } from '../../proto/types.js';
import { decodeInode, encodeInode, type Inode, isDirectory, isRegular } from '../namespace/inode-codec.js';
import {
  dentryRange,
  firstNumberOf,
  inodeKey,
  nameOfKey,
  reclaimKey,
  symlinkKey,
  tableFrom,
  tableRange,
  WHOLE_INODE,
  xattrRange,
} from '../namespace/keys.js';
import { decodeDentry, encodeReclaim } from '../namespace/records.js';
import { kindOf } from '../namespace/xattr.js';
import type { KvReader } from '../store/kv.js';
import { change, type Findings, type RecordRepair, together } from './findings.js';
import { keyText, type Names, readable } from './name-check.js';
import type { QuotaTally } from './quota-tally.js';
import { type Pace, scan } from './scan.js';

/** Inode numbers whose links are counted in one pass over all names: 12 MiB of counters. */
export const LINK_WINDOW_INODES = 1_048_576;
/** Inodes looked at between two turns of the event loop: a directory costs a read for each level above it. */
const INODE_SLICE = 64;

const DIRECTORY_TYPE = S_IFDIR >>> TYPE_SHIFT;

/** Sums over all inodes, as they are when everything that was found is repaired. */
export interface InodeTotals {
  inodes: number;
  orphans: number;
  allocated: number;
  maxIno: number;
}

export interface InodeCheckOptions {
  view: KvReader;
  pace: Pace;
  findings: Findings;
  names: Names;
  quotas: QuotaTally;
  /** Told how many inodes have been looked at. */
  progress(inodes: number): void;
  /** Default LINK_WINDOW_INODES. */
  windowInodes?: number;
}

/** What names say of a window of inode numbers. */
interface Links {
  from: number;
  counts: Uint32Array;
  /** A directory that has a name for the inode. */
  parents: Float64Array;
}

/** One inode as it is, and as it ought to be. */
interface Verdict {
  readonly inode: Inode;
  readonly right: Inode;
  /** What is wrong and can be set right, a phrase each. */
  readonly wrong: string[];
  /** Changes of other records that belong to it. */
  readonly also: RecordRepair[];
}

/**
 * Link counts, the sizes of directories, ways to the root, orphans, symlinks and attributes of every inode. Names are counted
 * in windows of inode numbers, so that memory does not grow with the number of files.
 */
export class InodeCheck {
  readonly #options: InodeCheckOptions;
  readonly #totals: InodeTotals = { inodes: 0, orphans: 0, allocated: 0, maxIno: 0 };
  #seen = 0;

  constructor(options: InodeCheckOptions) {
    this.#options = options;
  }

  async run(): Promise<InodeTotals> {
    const size = this.#options.windowInodes ?? LINK_WINDOW_INODES;
    for (let from = this.#inoFrom(0); from !== undefined; from = this.#inoFrom(from + size)) {
      await this.#checkWindow(await this.#countLinks(from, size));
    }
    return this.#totals;
  }

  /** The first inode number from `from` on. */
  #inoFrom(from: number): number | undefined {
    const { start, end } = tableFrom('I', from);
    for (const { key } of this.#options.view.range(start, end, { limit: 1 })) return firstNumberOf(key);
    return undefined;
  }

  async #countLinks(from: number, size: number): Promise<Links> {
    const { view, pace, names } = this.#options;
    const counts = new Uint32Array(size);
    const parents = new Float64Array(size);
    await scan(view, tableRange('D'), pace, (key, value) => {
      const at = decodeDentry(value).ino - from;
      if (at < 0 || at >= size || names.invalid.has(keyText(key))) return;
      counts[at] = (counts[at] as number) + 1;
      parents[at] = firstNumberOf(key);
    });
    return { from, counts, parents };
  }

  async #checkWindow(links: Links): Promise<void> {
    const { view, pace, progress } = this.#options;
    const end = inodeKey(links.from + links.counts.length);
    for (let next = links.from, left = true; left; ) {
      const slice: { ino: number; bytes: Buffer }[] = [];
      for (const { key, value } of view.range(inodeKey(next), end, { limit: INODE_SLICE })) {
        slice.push({ ino: firstNumberOf(key), bytes: Buffer.from(value) });
      }
      for (const { ino, bytes } of slice) await this.#check(ino, bytes, links);
      this.#seen += slice.length;
      progress(this.#seen);
      next = (slice.at(-1)?.ino ?? next) + 1;
      left = slice.length === INODE_SLICE;
      await pace.pause();
    }
  }

  async #check(ino: number, bytes: Buffer, links: Links): Promise<void> {
    const totals = this.#totals;
    totals.maxIno = Math.max(totals.maxIno, ino);
    totals.inodes++;
    let inode: Inode;
    try {
      inode = decodeInode(ino, bytes);
    } catch (error) {
      this.#found('damaged-inode', ino, `inode ${ino} cannot be read: ${String(error)}`);
      return;
    }
    totals.allocated += inode.allocated;
    const verdict: Verdict = { inode, right: { ...inode }, wrong: [], also: [] };
    const count = links.counts[ino - links.from] as number;
    if (isDirectory(inode)) await this.#directory(verdict, count, links.parents[ino - links.from] as number);
    else if (count === 0 && inode.nlink === 0) this.#unlinked(verdict, bytes);
    else this.#file(verdict, count);
    this.#xattrs(verdict);
    if (isDirectory(inode) && count === 1) this.#tree(verdict, links.parents[ino - links.from] as number);
    const { right, wrong, also } = verdict;
    if (inode.nlink > 0 || count > 0 || isRegular(inode)) this.#options.quotas.count(right);
    if (wrong.length === 0) return;
    right.change++;
    const repair = together(change(inodeKey(ino), bytes, encodeInode(right)), ...also);
    this.#found('inode', ino, `inode ${ino} ${wrong.join(', ')}`, repair);
  }

  async #directory({ inode, right, wrong }: Verdict, count: number, parent: number): Promise<void> {
    const { view, pace, names } = this.#options;
    const { ino } = inode;
    right.entries = 0;
    right.nlink = 2;
    await scan(view, dentryRange(ino), pace, (key, value) => {
      const name = keyText(key);
      if (names.invalid.has(name)) return;
      right.entries++;
      if ((names.types.get(name) ?? decodeDentry(value).type) === DIRECTORY_TYPE) right.nlink++;
    });
    if (inode.entries !== right.entries) wrong.push(`counts ${inode.entries} names for ${right.entries}`);
    if (inode.nlink !== right.nlink) wrong.push(`has link count ${inode.nlink} for ${right.nlink}`);
    if (ino === ROOT_INO) right.parent = ROOT_INO;
    else if (count === 1) right.parent = parent;
    if (inode.parent !== right.parent) wrong.push(`has ".." ${inode.parent} for ${right.parent}`);
    const expected = ino === ROOT_INO ? 0 : 1;
    if (count < expected) this.#found('unnamed', ino, `no name leads to directory ${ino}`);
    else if (count > expected) this.#found('many-names', ino, `directory ${ino} has ${count} names too many`);
    else if (this.#circles(right))
      this.#found('circle', ino, `directory ${ino} is cut off from the root, in a circle`);
  }

  /** Whether the way up comes back to where it was (Brent's cycle finding: no memory, no depth limit). */
  #circles(directory: Inode): boolean {
    let mark = directory.ino;
    let at = directory.parent;
    for (let steps = 0, next = 1; at !== ROOT_INO; steps++) {
      if (at === mark) return directory.ino !== ROOT_INO;
      if (steps === next) {
        mark = at;
        next *= 2;
        steps = 0;
      }
      const above = readable(this.#options.view, at);
      if (!above || !isDirectory(above)) return false; // reported at that inode, or as a stray name
      at = above.parent;
    }
    return false;
  }

  /** A file, or anything else that is no directory, with names or with a link count. */
  #file({ inode, right, wrong, also }: Verdict, count: number): void {
    const { view } = this.#options;
    const { ino } = inode;
    if (count === 0) {
      this.#found('unnamed', ino, `no name leads to inode ${ino}, which has link count ${inode.nlink}`);
    } else {
      right.nlink = count;
      if (inode.nlink !== count) wrong.push(`has link count ${inode.nlink} for ${count}`);
      const orphan = reclaimKey(ino, WHOLE_INODE);
      // One that has a link count too is found with the records: a look for each file would take long.
      const record = inode.nlink === 0 ? view.get(orphan) : undefined;
      if (record) {
        wrong.push('is about to be deleted although it has a name');
        also.push(change(orphan, record, undefined));
      }
    }
    this.#truncates(inode, wrong, also);
    this.#symlink(inode, right, wrong);
  }

  /** A regular file without names stays until its data is gone; anything else goes with its last name. */
  #unlinked({ inode, wrong, also }: Verdict, bytes: Buffer): void {
    const { ino } = inode;
    if (!isRegular(inode)) {
      this.#totals.inodes--;
      this.#totals.allocated -= inode.allocated;
      const repair = change(inodeKey(ino), bytes, undefined);
      this.#found('unlinked', ino, `inode ${ino} has no name and was not removed`, repair);
      return;
    }
    this.#totals.orphans++;
    const orphan = reclaimKey(ino, WHOLE_INODE);
    if (!this.#options.view.get(orphan)) {
      const { size, chunkSize } = inode;
      wrong.push('is deleted, and its data does not wait to be removed');
      also.push(change(orphan, undefined, encodeReclaim({ from: 0, size, chunkSize })));
    }
    this.#truncates(inode, wrong, also);
  }

  #truncates(inode: Inode, wrong: string[], also: RecordRepair[]): void {
    for (const { seq, from } of inode.truncates) {
      const key = reclaimKey(inode.ino, seq);
      if (this.#options.view.get(key)) continue;
      wrong.push(`has truncate ${seq}, which does not wait to be applied`);
      const record = { from, size: Math.max(from, inode.size), chunkSize: inode.chunkSize };
      also.push(change(key, undefined, encodeReclaim(record)));
    }
  }

  #tree({ inode, right, wrong }: Verdict, parent: number): void {
    const { view, quotas } = this.#options;
    const project = quotas.misplaced(view, inode, parent);
    if (project === undefined) return;
    wrong.push(`is counted in tree ${inode.project} and lies in ${project}`);
    right.project = project;
  }

  #symlink(inode: Inode, right: Inode, wrong: string[]): void {
    if ((inode.mode & S_IFMT) !== S_IFLNK) return;
    const target = this.#options.view.get(symlinkKey(inode.ino));
    if (!target) this.#found('symlink', inode.ino, `symlink ${inode.ino} has no target`);
    else if (target.length !== inode.size) {
      wrong.push(`is ${inode.size} bytes long for a target of ${target.length}`);
      right.size = target.length;
    }
  }

  #xattrs({ inode, right, wrong }: Verdict): void {
    // Attributes that are not counted at all are found with the records.
    if (inode.xattrBytes === 0) return;
    const { start, end } = xattrRange(inode.ino);
    right.xattrBytes = 0;
    right.xattrKinds = 0;
    for (const { key } of this.#options.view.range(start, end)) {
      const name = nameOfKey(key);
      right.xattrBytes += name.length + 1;
      right.xattrKinds |= kindOf(name);
    }
    if (inode.xattrBytes !== right.xattrBytes)
      wrong.push(`counts ${inode.xattrBytes} bytes of attribute names for ${right.xattrBytes}`);
    if (inode.xattrKinds !== right.xattrKinds) wrong.push('is marked wrongly for what its attributes mean');
  }

  #found(kind: string, ino: number, text: string, repair?: RecordRepair): void {
    this.#options.findings.add({ kind, ino, text, repair });
  }
}
