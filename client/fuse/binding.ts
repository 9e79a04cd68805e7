import type { Timespec } from '../../common/clock.js';
import type { Answer } from '../answer.js';
import type { Interrupt } from '../wait.js';

/**
 * The boundary between the kernel and the file system: inode-level requests, as the kernel sends them. Two bindings
 * call a `FileSystem`: kernel/ (FUSE protocol on /dev/fuse) and fuse-native.ts. Methods reject with a HoldfastError;
 * its errno is what the program sees. A method that is absent is answered ENOSYS.
 */

/**
 * Who asks. fuse-native knows no caller: it passes the mounting user. Hand it on as it is: a copy by
 * `{ ...caller }` lacks `signal`.
 */
export interface Caller {
  uid: number;
  gid: number;
  pid: number;
  /** Aborted when the kernel interrupts the request (FUSE_INTERRUPT): the method should reject with EINTR soon. */
  signal: Interrupt;
}

export interface FileAttr {
  ino: number;
  /** Type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  /** 512-byte units. */
  blocks: number;
  blksize: number;
  atime: Timespec;
  mtime: Timespec;
  ctime: Timespec;
  /** When it was made, where that is known. */
  btime?: Timespec | undefined;
}

/** An inode with how long, in ms, the kernel may believe it. Each Entry given counts one kernel lookup (see forget). */
export interface Entry {
  /** ino 0 with a positive entryTtlMs: a negative entry. */
  attr: FileAttr;
  generation: number;
  entryTtlMs: number;
  attrTtlMs: number;
}

export interface AttrReply {
  attr: FileAttr;
  ttlMs: number;
}

export interface OpenReply {
  handle: number;
  /** FOPEN_DIRECT_IO: the kernel's page cache is not used. */
  directIo?: boolean;
  /** FOPEN_KEEP_CACHE: cached pages stay valid. */
  keepCache?: boolean;
  /** FOPEN_NONSEEKABLE is never needed; FOPEN_NOFLUSH: no FLUSH at close is wanted. */
  noFlush?: boolean;
  /** FOPEN_CACHE_DIR, for opendir. */
  cacheDir?: boolean;
}

export interface CreateReply extends OpenReply {
  entry: Entry;
}

/** Which attributes a setattr changes. `handle` is given for ftruncate and futimens. */
export interface SetAttrRequest {
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  atime?: Timespec | 'now';
  mtime?: Timespec | 'now';
  ctime?: Timespec;
  /** FATTR_KILL_SUIDGID. */
  killPriv?: boolean;
  handle?: number;
  lockOwner?: bigint;
}

export interface DirEntry {
  name: Buffer;
  ino: number;
  /** S_IFMT >> 12, as d_type. */
  type: number;
  /** Opaque, not 0: hand it back to go on behind this entry. Below 2^53. */
  cookie: number;
  /** With readdirplus; "." and ".." carry none. A given entry counts one lookup. */
  entry?: Entry;
}

export interface StatFs {
  blockSize: number;
  /** In blockSize units. */
  blocks: number;
  free: number;
  available: number;
  files: number;
  filesFree: number;
  nameMax: number;
}

export interface FileLock {
  start: number;
  /** Inclusive; Number.MAX_SAFE_INTEGER for "to the end". */
  end: number;
  type: 'read' | 'write' | 'unlock';
  pid: number;
}

export interface WriteRequest {
  handle: number;
  offset: number;
  data: Buffer;
  /** Pages written back by the kernel (mmap, write-back): the caller is not the writer. */
  fromCache: boolean;
  /**
   * FUSE_WRITE_KILL_SUIDGID, on every write by one without CAP_FSETID: take setuid away, and setgid where the group may
   * execute. The kernel goes on believing the mode it has cached: where bits were taken away, push
   * invalidateInode(ino, -1, 0) before answering.
   */
  killPriv: boolean;
  /** open(2) flags of the handle. */
  flags: number;
  lockOwner?: bigint;
}

/** Errors are thrown, or reject the answer. A method that is absent is not supported. */
export interface FileSystem {
  /** The binding is up: capabilities and limits that were agreed, and the way to push invalidations. */
  init?(info: BindingInfo): Promise<void>;
  /** The mount is going away; flush what is buffered. */
  destroy?(): Promise<void>;
  /** `name` may be "." or "..". A missing name: reject with ENOENT, or answer a negative entry. */
  lookup(caller: Caller, parent: number, name: Buffer): Answer<Entry>;
  /** The kernel dropped `count` of its lookups of an inode. No answer. */
  forget(ino: number, count: number): void;
  getattr(caller: Caller, ino: number, handle?: number): Answer<AttrReply>;
  setattr(caller: Caller, ino: number, change: SetAttrRequest): Answer<AttrReply>;
  readlink(caller: Caller, ino: number): Answer<Buffer>;
  symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Answer<Entry>;
  /** `mode` includes the type (file, fifo, socket, device); `umask` is the caller's, not yet applied. */
  mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Answer<Entry>;
  mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Answer<Entry>;
  unlink(caller: Caller, parent: number, name: Buffer): Answer<void>;
  rmdir(caller: Caller, parent: number, name: Buffer): Answer<void>;
  rename(
    caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Answer<void>;
  link(caller: Caller, ino: number, newParent: number, newName: Buffer): Answer<Entry>;
  /**
   * `flags` of open(2), O_TRUNC among them. `killPriv` (with O_TRUNC): as in WriteRequest. `unread`: no program reads through
   * it, for the kernel opens it to ask about the inode, and minds nothing that is said of caches.
   */
  open(caller: Caller, ino: number, flags: number, killPriv?: boolean, unread?: boolean): Answer<OpenReply>;
  create(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    flags: number,
    umask: number,
  ): Answer<CreateReply>;
  /** O_TMPFILE: a file without a name in the file system of directory `parent`. */
  tmpfile?(caller: Caller, parent: number, mode: number, flags: number, umask: number): Promise<CreateReply>;
  /** Fewer bytes than `size` only at end of file. Several buffers are sent without a copy. */
  read(caller: Caller, ino: number, handle: number, offset: number, size: number): Answer<Buffer[]>;
  /** `data` belongs to the file system once called (it is not reused by the binding). Returns the bytes taken. */
  write(caller: Caller, ino: number, request: WriteRequest): Answer<number>;
  /** Each close(2): report write errors here. */
  flush(caller: Caller, ino: number, handle: number, lockOwner: bigint): Answer<void>;
  /** The last reference to the handle is gone. */
  release(ino: number, handle: number, flags: number, lockOwner?: bigint): Answer<void>;
  fsync(caller: Caller, ino: number, handle: number, dataOnly: boolean): Answer<void>;
  opendir(caller: Caller, ino: number, flags: number, unread?: boolean): Answer<OpenReply>;
  /** Entries behind `cookie` (0: from the start), "." and ".." included; an empty answer is the end. */
  readdir(
    caller: Caller,
    ino: number,
    handle: number,
    cookie: number,
    maxEntries: number,
    plus: boolean,
  ): Answer<DirEntry[]>;
  releasedir(ino: number, handle: number): Answer<void>;
  fsyncdir(caller: Caller, ino: number, handle: number, dataOnly: boolean): Answer<void>;
  statfs(caller: Caller, ino: number): Answer<StatFs>;
  /** @returns undefined: there is none. The kernel asks for some again and again, and a throw costs more than the rest of the call. */
  getxattr(caller: Caller, ino: number, name: Buffer): Answer<Buffer | undefined>;
  /** `killSgid` (of an access ACL): the caller may not keep the setgid bit. */
  setxattr(
    caller: Caller,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    killSgid?: boolean,
  ): Answer<void>;
  listxattr(caller: Caller, ino: number): Answer<Buffer[]>;
  removexattr(caller: Caller, ino: number, name: Buffer): Answer<void>;
  access?(caller: Caller, ino: number, mask: number): Promise<void>;
  fallocate?(
    caller: Caller,
    ino: number,
    handle: number,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void>;
  /** SEEK_DATA 3 or SEEK_HOLE 4; ENXIO behind the end. */
  lseek?(caller: Caller, ino: number, handle: number, offset: number, whence: number): Promise<number>;
  copyFileRange?(
    caller: Caller,
    from: { ino: number; handle: number; offset: number },
    to: { ino: number; handle: number; offset: number },
    length: number,
  ): Promise<number>;
  getlk?(caller: Caller, ino: number, handle: number, owner: bigint, lock: FileLock): Promise<FileLock>;
  setlk?(
    caller: Caller,
    ino: number,
    handle: number,
    owner: bigint,
    lock: FileLock,
    options: { wait: boolean; flock: boolean },
  ): Promise<void>;
  /** syncfs(2). The kernel may never ask (Linux does not for plain FUSE mounts). */
  syncfs?(caller: Caller): Promise<void>;
  /** ioctl_iflags(2). The kernel may hold its lock on the inode. */
  getFlags?(caller: Caller, ino: number): Answer<number>;
  /** All that the inode has from now on. EPERM, also when it is not the caller's; EOPNOTSUPP: one that is not known. */
  setFlags?(caller: Caller, ino: number, flags: number): Answer<void>;
}

/** What a binding can do; the file system adapts to it and the mount command prints what is missing. */
export interface BindingInfo {
  kind: 'kernel' | 'fuse-native';
  /** Bytes in one write request. */
  maxWrite: number;
  callerIdentity: boolean;
  nanoseconds: boolean;
  notify?: Notifier;
}

/** Pushes to the kernel, written from a pool thread. Resolve when the kernel has taken them; ENOENT is success. */
export interface Notifier {
  /** length 0: to the end; offset < 0: attributes only. */
  invalidateInode(ino: number, offset: number, length: number): Promise<void>;
  /**
   * Puts bytes into the kernel's pages of an inode, over what they hold. Waits for pages that are being read or written.
   * Not beyond the end that the kernel knows. Absent: it cannot be done.
   */
  storePages?(ino: number, offset: number, data: Buffer): Promise<void>;
  /**
   * Puts all bytes of a file that no program has open into the kernel's pages, at once: none of them is being read or
   * written, so it waits for nothing. @returns false: they are not there, or not all
   */
  storeFile?(ino: number, data: Buffer): boolean;
  /** The kernel asks again for the attributes. At once, takes no lock. */
  expireAttr?(ino: number): void;
  /**
   * An invalidation of an inode or its names is to be sent behind this: what the kernel has been answered about them before,
   * and may not believe yet, would come behind the invalidation. Absent: nothing can. @returns undefined: at once
   */
  takenIn?(ino: number): Promise<void> | undefined;
  /**
   * Whether the kernel may yet take in names of a listing that it was answered: those it believes also behind forgetNames().
   * Absent: it never does.
   */
  takesInNames?(): boolean;
  invalidateEntry(parent: number, name: Buffer): Promise<void>;
  /** The kernel asks again at the next use of the entry. Takes the kernel's lock on the directory. */
  expireEntry(parent: number, name: Buffer): Promise<void>;
  /** The kernel asks again for every name of the mount. At once, takes no lock. @returns false when it cannot */
  forgetNames(): boolean;
  /** The entry was deleted: inotify is told. */
  deleteEntry(parent: number, child: number, name: Buffer): Promise<void>;
}

export interface MountOptions {
  mountPoint: string;
  /** Shown as the source in /proc/mounts. */
  fsName: string;
  /** Other users may use the mount (kernel: as root always). */
  allowOther: boolean;
  readOnly?: boolean;
  /**
   * Permissions of the root, which root owns: what the kernel goes by until it has been told its attributes. It may not come
   * to believe any for a while, when others change the root. Absent: it lets nobody in but root before.
   */
  rootMode?: number;
  /** nosuid, nodev, noexec and others that the kernel applies by itself. */
  kernelOptions?: readonly string[];
  /** How long the next request is polled for behind an answer, us; 0: not at all. The binding fuse-native does not. */
  busyPollUs?: number;
}

/** A mounted file system. */
export interface Mount {
  readonly info: BindingInfo;
  /** Settles when the mount has ended, whoever ended it. */
  readonly ended: Promise<void>;
  /** Requests of the kernel so far, by name; absent where the binding does not see them. */
  requests?(): Record<string, number>;
  /** In writes of the kernel that wait for the file system; absent where the binding does not see them. */
  unansweredWriteBytes?(): number;
  /** Unmounts: plainly, then lazily after `graceMs`, then by aborting the connection. Idempotent. */
  unmount(graceMs: number): Promise<void>;
}
