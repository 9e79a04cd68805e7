import type {
  AttrReply,
  BindingInfo,
  Caller,
  CreateReply,
  DirEntry,
  Entry,
  FileLock,
  FileSystem,
  OpenReply,
  SetAttrRequest,
  StatFs,
  WriteRequest,
} from '../../../../client/fuse/binding.js';
import type { Clock, Timespec } from '../../../../common/clock.js';
import { HoldfastError } from '../../../../proto/errors.js';
import {
  NAME_MAX_BYTES,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  ROOT_INO,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
  S_ISGID,
} from '../../../../proto/types.js';
import { FALLOC_SUPPORTED } from './memory-file.js';
import { MemoryLocks } from './memory-locks.js';
import { Directory, MemoryNode, nameKey } from './memory-node.js';

const O_TRUNC = 0o1000;
const SEEK_DATA = 3;
const CAPACITY_BLOCKS = 1 << 20;

export interface MemoryFsOptions {
  clock: Clock;
  /** How long the kernel may believe entries and attributes. */
  ttlMs: number;
  keepCache: boolean;
}

/**
 * A whole POSIX file system in memory, without permissions (the kernel checks them): what the bindings are tested
 * against, and the reference for what the real one must answer.
 */
export class MemoryFs implements FileSystem {
  info: BindingInfo | undefined;
  private readonly nodes = new Map<number, MemoryNode>();
  private readonly handles = new Map<number, MemoryNode>();
  private readonly locks = new MemoryLocks();
  private nextIno = ROOT_INO + 1;
  private nextHandle = 1;

  constructor(private readonly options: MemoryFsOptions) {
    const root = new MemoryNode(ROOT_INO, S_IFDIR | 0o755, 0, 0, 0, this.now());
    root.directory = new Directory(ROOT_INO);
    root.nlink = 2;
    root.lookups = 1;
    this.nodes.set(ROOT_INO, root);
  }

  async init(info: BindingInfo): Promise<void> {
    this.info = info;
  }

  /** Inodes that exist, for tests that count leaks. */
  get inodeCount(): number {
    return this.nodes.size;
  }

  async lookup(_caller: Caller, parent: number, name: Buffer): Promise<Entry> {
    const dir = this.directory(parent);
    const special = name.equals(DOT) ? parent : name.equals(DOT_DOT) ? dir.parent : undefined;
    return this.entry(this.node(special ?? this.child(parent, name)));
  }

  forget(ino: number, count: number): void {
    const node = this.nodes.get(ino);
    if (!node) return;
    node.lookups -= count;
    if (node.lookups < 0) throw new Error(`inode ${ino} was forgotten more often than it was looked up`);
    this.reap(node);
  }

  async getattr(_caller: Caller, ino: number): Promise<AttrReply> {
    return { attr: this.node(ino).attr(), ttlMs: this.options.ttlMs };
  }

  async setattr(caller: Caller, ino: number, change: SetAttrRequest): Promise<AttrReply> {
    const node = this.node(ino);
    const now = this.now();
    if (change.uid !== undefined || change.gid !== undefined) {
      node.uid = change.uid ?? node.uid;
      node.gid = change.gid ?? node.gid;
      if (!node.isDirectory) node.killPriv();
    }
    if (change.killPriv) node.killPriv();
    if (change.mode !== undefined) node.mode = (node.mode & ~0o7777) | (change.mode & 0o7777);
    if (change.size !== undefined) {
      node.data.truncate(change.size);
      node.mtime = now;
    }
    if (change.atime) node.atime = change.atime === 'now' ? now : change.atime;
    if (change.mtime) node.mtime = change.mtime === 'now' ? now : change.mtime;
    node.ctime = change.ctime ?? now;
    return this.getattr(caller, ino);
  }

  async readlink(_caller: Caller, ino: number): Promise<Buffer> {
    return this.node(ino).target;
  }

  async symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Promise<Entry> {
    const node = this.add(caller, parent, name, S_IFLNK | 0o777, 0);
    node.target = target;
    return this.entry(node);
  }

  async mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry> {
    return this.entry(this.add(caller, parent, name, mode & ~umask, rdev));
  }

  async mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Promise<Entry> {
    return this.entry(this.add(caller, parent, name, S_IFDIR | (mode & 0o7777 & ~umask), 0));
  }

  async unlink(_caller: Caller, parent: number, name: Buffer): Promise<void> {
    const node = this.node(this.child(parent, name));
    if (node.isDirectory) throw new HoldfastError('EISDIR');
    this.remove(parent, name, node);
  }

  async rmdir(_caller: Caller, parent: number, name: Buffer): Promise<void> {
    const node = this.node(this.child(parent, name));
    if (!node.directory) throw new HoldfastError('ENOTDIR');
    if (node.directory.entries.size > 0) throw new HoldfastError('ENOTEMPTY');
    this.remove(parent, name, node);
  }

  async rename(
    _caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<void> {
    const moved = this.node(this.child(parent, name));
    const targetIno = this.directory(newParent).get(newName);
    const target = targetIno === undefined ? undefined : this.node(targetIno);
    if (target && flags & RENAME_NOREPLACE) throw new HoldfastError('EEXIST');
    if (this.isWithin(newParent, moved)) throw new HoldfastError('EINVAL');
    if (flags & RENAME_EXCHANGE) {
      if (!target) throw new HoldfastError('ENOENT');
      if (this.isWithin(parent, target)) throw new HoldfastError('EINVAL');
      this.place(target, parent, name, newParent);
      this.place(moved, newParent, newName, parent);
      return;
    }
    if (target === moved) return;
    if (target) {
      if (moved.isDirectory && !target.isDirectory) throw new HoldfastError('ENOTDIR');
      if (!moved.isDirectory && target.isDirectory) throw new HoldfastError('EISDIR');
      if (target.directory && target.directory.entries.size > 0) throw new HoldfastError('ENOTEMPTY');
      this.remove(newParent, newName, target);
    }
    this.directory(parent).delete(name);
    this.place(moved, newParent, newName, parent);
    this.node(parent).touch(this.now());
  }

  async link(_caller: Caller, ino: number, newParent: number, newName: Buffer): Promise<Entry> {
    const node = this.node(ino);
    this.mustBeFree(newParent, newName);
    this.directory(newParent).set(newName, ino);
    node.nlink++;
    node.ctime = this.now();
    this.node(newParent).touch(this.now());
    return this.entry(node);
  }

  async open(_caller: Caller, ino: number, flags: number, killPriv?: boolean): Promise<OpenReply> {
    const node = this.node(ino);
    if (killPriv) await this.killPriv(node);
    if (flags & O_TRUNC) {
      node.data.truncate(0);
      node.touch(this.now());
    }
    return this.opened(node);
  }

  async create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    _flags: number,
    umask: number,
  ): Promise<CreateReply> {
    const node = this.add(caller, parent, name, S_IFREG | (mode & 0o7777 & ~umask), 0);
    return { ...this.opened(node), entry: this.entry(node) };
  }

  async tmpfile(
    caller: Caller,
    parent: number,
    mode: number,
    _flags: number,
    umask: number,
  ): Promise<CreateReply> {
    const node = this.make(caller, this.node(parent), S_IFREG | (mode & 0o7777 & ~umask), 0);
    node.nlink = 0;
    return { ...this.opened(node), entry: this.entry(node) };
  }

  async read(_caller: Caller, ino: number, _handle: number, offset: number, size: number): Promise<Buffer[]> {
    return [this.node(ino).data.read(offset, size)];
  }

  async write(_caller: Caller, ino: number, request: WriteRequest): Promise<number> {
    const node = this.node(ino);
    if (request.killPriv) await this.killPriv(node);
    node.data.write(request.offset, request.data);
    node.touch(this.now());
    return request.data.length;
  }

  async flush(_caller: Caller, ino: number, _handle: number, lockOwner: bigint): Promise<void> {
    this.locks.drop(ino, lockOwner, false);
  }

  async release(ino: number, handle: number, _flags: number, lockOwner?: bigint): Promise<void> {
    if (lockOwner !== undefined) this.locks.drop(ino, lockOwner, true);
    this.close(handle);
  }

  async fsync(): Promise<void> {}

  async opendir(_caller: Caller, ino: number): Promise<OpenReply> {
    return this.opened(this.node(ino));
  }

  async readdir(
    _caller: Caller,
    ino: number,
    _handle: number,
    cookie: number,
    maxEntries: number,
    plus: boolean,
  ): Promise<DirEntry[]> {
    const dir = this.directory(ino);
    const found: DirEntry[] = [];
    if (cookie < 1) found.push({ name: DOT, ino, type: DT_DIR, cookie: 1 });
    if (cookie < 2) found.push({ name: DOT_DOT, ino: dir.parent, type: DT_DIR, cookie: 2 });
    for (const [key, entry] of dir.entries) {
      if (found.length >= maxEntries) break;
      if (entry.cookie <= cookie) continue;
      const node = this.node(entry.ino);
      const item: DirEntry = {
        name: Buffer.from(key, 'latin1'),
        ino: entry.ino,
        type: node.mode >> 12,
        cookie: entry.cookie,
      };
      if (plus) item.entry = this.entry(node);
      found.push(item);
    }
    return found;
  }

  async releasedir(_ino: number, handle: number): Promise<void> {
    this.close(handle);
  }

  async fsyncdir(): Promise<void> {}

  async statfs(): Promise<StatFs> {
    let used = 0;
    for (const node of this.nodes.values()) used += node.data.allocatedBytes / 4096;
    return {
      blockSize: 4096,
      blocks: CAPACITY_BLOCKS,
      free: CAPACITY_BLOCKS - used,
      available: CAPACITY_BLOCKS - used,
      files: CAPACITY_BLOCKS,
      filesFree: CAPACITY_BLOCKS - this.nodes.size,
      nameMax: NAME_MAX_BYTES,
    };
  }

  async getxattr(_caller: Caller, ino: number, name: Buffer): Promise<Buffer> {
    const value = this.node(ino).xattrs.get(nameKey(name));
    if (!value) throw new HoldfastError('ENODATA');
    return value;
  }

  async setxattr(_caller: Caller, ino: number, name: Buffer, value: Buffer, flags: number): Promise<void> {
    this.node(ino).setXattr(name, value, flags);
  }

  async listxattr(_caller: Caller, ino: number): Promise<Buffer[]> {
    return [...this.node(ino).xattrs.keys()].map((key) => Buffer.from(key, 'latin1'));
  }

  async removexattr(_caller: Caller, ino: number, name: Buffer): Promise<void> {
    if (!this.node(ino).xattrs.delete(nameKey(name))) throw new HoldfastError('ENODATA');
  }

  async fallocate(
    _caller: Caller,
    ino: number,
    _handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    if (mode & ~FALLOC_SUPPORTED) throw new HoldfastError('EOPNOTSUPP');
    this.node(ino).data.fallocate(mode, offset, length);
    this.node(ino).touch(this.now());
  }

  async lseek(
    _caller: Caller,
    ino: number,
    _handle: number,
    offset: number,
    whence: number,
  ): Promise<number> {
    const found = this.node(ino).data.seek(offset, whence === SEEK_DATA);
    if (found === undefined) throw new HoldfastError('ENXIO');
    return found;
  }

  async copyFileRange(
    _caller: Caller,
    from: { ino: number; handle: number; offset: number },
    to: { ino: number; handle: number; offset: number },
    length: number,
  ): Promise<number> {
    const data = this.node(from.ino).data.read(from.offset, length);
    this.node(to.ino).data.write(to.offset, data);
    this.node(to.ino).touch(this.now());
    return data.length;
  }

  async getlk(
    _caller: Caller,
    ino: number,
    _handle: number,
    owner: bigint,
    lock: FileLock,
  ): Promise<FileLock> {
    return this.locks.conflict({ ino, owner, flock: false, lock }) ?? { ...lock, type: 'unlock' };
  }

  async setlk(
    caller: Caller,
    ino: number,
    _handle: number,
    owner: bigint,
    lock: FileLock,
    options: { wait: boolean; flock: boolean },
  ): Promise<void> {
    await this.locks.set({ ino, owner, flock: options.flock, lock }, options.wait, caller.signal);
  }

  /** Changes a file's contents behind the kernel's back, as another client would. */
  overwrite(ino: number, contents: Buffer): void {
    const node = this.node(ino);
    node.data.truncate(0);
    node.data.write(0, contents);
  }

  /** The kernel does not learn from a write or open that the mode has changed. */
  private async killPriv(node: MemoryNode): Promise<void> {
    const before = node.mode;
    node.killPriv();
    if (node.mode !== before) await this.info?.notify?.invalidateInode(node.ino, -1, 0);
  }

  private now(): Timespec {
    return this.options.clock.wall();
  }

  private node(ino: number): MemoryNode {
    const node = this.nodes.get(ino);
    if (!node) throw new HoldfastError('ESTALE');
    return node;
  }

  private directory(ino: number): Directory {
    const { directory } = this.node(ino);
    if (!directory) throw new HoldfastError('ENOTDIR');
    return directory;
  }

  private child(parent: number, name: Buffer): number {
    const ino = this.directory(parent).get(name);
    if (ino === undefined) throw new HoldfastError('ENOENT');
    return ino;
  }

  private entry(node: MemoryNode): Entry {
    node.lookups++;
    const { ttlMs } = this.options;
    return { attr: node.attr(), generation: 1, entryTtlMs: ttlMs, attrTtlMs: ttlMs };
  }

  private opened(node: MemoryNode): OpenReply {
    const handle = this.nextHandle++;
    this.handles.set(handle, node);
    node.handles++;
    return { handle, keepCache: this.options.keepCache };
  }

  private close(handle: number): void {
    const node = this.handles.get(handle);
    if (!node) throw new HoldfastError('EBADF');
    this.handles.delete(handle);
    node.handles--;
    this.reap(node);
  }

  private mustBeFree(parent: number, name: Buffer): void {
    if (name.length > NAME_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
    if (this.directory(parent).get(name) !== undefined) throw new HoldfastError('EEXIST');
    if (this.node(parent).nlink === 0) throw new HoldfastError('ENOENT');
  }

  private make(caller: Caller, dir: MemoryNode, mode: number, rdev: number): MemoryNode {
    const inherits = (dir.mode & S_ISGID) !== 0;
    const isDirectory = (mode & S_IFDIR) === S_IFDIR && (mode & S_IFREG) === 0;
    const gid = inherits ? dir.gid : caller.gid;
    const fullMode = inherits && isDirectory ? mode | S_ISGID : mode;
    const node = new MemoryNode(this.nextIno++, fullMode, caller.uid, gid, rdev, this.now());
    this.nodes.set(node.ino, node);
    return node;
  }

  private add(caller: Caller, parent: number, name: Buffer, mode: number, rdev: number): MemoryNode {
    this.mustBeFree(parent, name);
    const dir = this.node(parent);
    const node = this.make(caller, dir, mode, rdev);
    if (node.isDirectory) {
      node.directory = new Directory(parent);
      node.nlink = 2;
      dir.nlink++;
    }
    this.directory(parent).set(name, node.ino);
    dir.touch(this.now());
    return node;
  }

  private remove(parent: number, name: Buffer, node: MemoryNode): void {
    const dir = this.node(parent);
    this.directory(parent).delete(name);
    dir.touch(this.now());
    if (node.isDirectory) {
      node.nlink = 0;
      dir.nlink--;
    } else node.nlink--;
    node.ctime = this.now();
    this.reap(node);
  }

  /** Puts a moved node under its new name; a directory learns its new parent, whose link counts follow. */
  private place(node: MemoryNode, parent: number, name: Buffer, oldParent: number): void {
    this.directory(parent).set(name, node.ino);
    if (node.directory && parent !== oldParent) {
      node.directory.parent = parent;
      this.node(oldParent).nlink--;
      this.node(parent).nlink++;
    }
    node.ctime = this.now();
    this.node(parent).touch(this.now());
  }

  private isWithin(ino: number, ancestor: MemoryNode): boolean {
    if (!ancestor.directory) return false;
    for (let at = ino; at !== ROOT_INO; at = this.directory(at).parent) if (at === ancestor.ino) return true;
    return false;
  }

  private reap(node: MemoryNode): void {
    if (node.nlink === 0 && node.lookups === 0 && node.handles === 0) this.nodes.delete(node.ino);
  }
}

const DOT = Buffer.from('.');
const DOT_DOT = Buffer.from('..');
const DT_DIR = S_IFDIR >> 12;
