import type { FileAttr } from '../../../../client/fuse/binding.js';
import type { Timespec } from '../../../../common/clock.js';
import { HoldfastError } from '../../../../proto/errors.js';
import {
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
  XATTR_CREATE,
  XATTR_REPLACE,
} from '../../../../proto/types.js';
import { SparseData } from './memory-file.js';

const S_IXGRP = 0o010;
const FIRST_COOKIE = 3;

/** Names are bytes; as keys they are latin1 strings, which keep every byte. */
export function nameKey(name: Buffer): string {
  return name.toString('latin1');
}

/** Entries of a directory; their cookies grow and stay. */
export class Directory {
  readonly entries = new Map<string, { ino: number; cookie: number }>();
  private nextCookie = FIRST_COOKIE;

  constructor(public parent: number) {}

  get(name: Buffer): number | undefined {
    return this.entries.get(nameKey(name))?.ino;
  }

  set(name: Buffer, ino: number): void {
    const key = nameKey(name);
    const present = this.entries.get(key);
    if (present) present.ino = ino;
    else this.entries.set(key, { ino, cookie: this.nextCookie++ });
  }

  delete(name: Buffer): void {
    this.entries.delete(nameKey(name));
  }
}

/** An inode. */
export class MemoryNode {
  readonly xattrs = new Map<string, Buffer>();
  readonly data = new SparseData();
  directory: Directory | undefined;
  target: Buffer = Buffer.alloc(0);
  nlink = 1;
  /** Lookups that the kernel holds, and open handles: with neither and no link, it goes. */
  lookups = 0;
  handles = 0;
  atime: Timespec;
  mtime: Timespec;
  ctime: Timespec;

  constructor(
    readonly ino: number,
    public mode: number,
    public uid: number,
    public gid: number,
    readonly rdev: number,
    now: Timespec,
  ) {
    this.atime = now;
    this.mtime = now;
    this.ctime = now;
  }

  get isDirectory(): boolean {
    return (this.mode & S_IFMT) === S_IFDIR;
  }

  get isFile(): boolean {
    return (this.mode & S_IFMT) === S_IFREG;
  }

  get size(): number {
    if (this.directory) return PAGE_OF_A_DIRECTORY;
    return this.isFile ? this.data.size : this.target.length;
  }

  touch(now: Timespec): void {
    this.mtime = now;
    this.ctime = now;
  }

  setXattr(name: Buffer, value: Buffer, flags: number): void {
    const present = this.xattrs.has(nameKey(name));
    if (flags & XATTR_CREATE && present) throw new HoldfastError('EEXIST');
    if (flags & XATTR_REPLACE && !present) throw new HoldfastError('ENODATA');
    this.xattrs.set(nameKey(name), value);
  }

  /** What a write, truncate or chown by someone without CAP_FSETID takes away. */
  killPriv(): void {
    this.mode &= ~S_ISUID;
    if (this.mode & S_IXGRP) this.mode &= ~S_ISGID;
  }

  attr(): FileAttr {
    return {
      ino: this.ino,
      mode: this.mode,
      nlink: this.nlink,
      uid: this.uid,
      gid: this.gid,
      rdev: this.rdev,
      size: this.size,
      blocks: this.data.allocatedBytes / 512,
      blksize: 4096,
      atime: this.atime,
      mtime: this.mtime,
      ctime: this.ctime,
    };
  }
}

const PAGE_OF_A_DIRECTORY = 4096;
