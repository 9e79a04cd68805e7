/**
 * Numbers of the FUSE kernel protocol, version 7.x: include/uapi/linux/fuse.h of Linux, which is the reference for
 * every layout in this directory. Only what this binding uses is listed.
 */

export const FUSE_KERNEL_VERSION = 7;
/** The newest minor version whose layouts are known here; the kernel uses the lower of its own and ours. */
export const FUSE_KERNEL_MINOR_VERSION = 40;
/** Below it, INIT replies and entries are shorter: refused (Linux 4.20 speaks 7.28). */
export const FUSE_MIN_MINOR_VERSION = 28;

export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
export const WRITE_IN_BYTES = 40;
export const ENTRY_OUT_BYTES = 128;
export const ATTR_OUT_BYTES = 104;
export const OPEN_OUT_BYTES = 16;
export const DIRENT_HEADER_BYTES = 24;
export const STATX_OUT_BYTES = 288;
export const INIT_OUT_BYTES = 64;
export const STATFS_OUT_BYTES = 80;

export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  /** Since 7.39: what stat(2) has no room for. */
  STATX: 52,
} as const;

/** Bits 0..31 of the INIT flags, as unsigned numbers. */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  FLOCK_LOCKS: 1 << 10,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

/** Bits 32..63 of the INIT flags, moved down by 32: the field flags2. */
export const InitFlag2 = {
  /** mmap(MAP_SHARED) of files open with FOPEN_DIRECT_IO. */
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
} as const;

export const SetattrValid = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  LOCKOWNER: 1 << 9,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

export const OpenOutFlag = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  CACHE_DIR: 1 << 3,
  NOFLUSH: 1 << 5,
} as const;

export const OPEN_KILL_SUIDGID = 1 << 0;
export const GETATTR_FH = 1 << 0;
export const WRITE_CACHE = 1 << 0;
export const WRITE_LOCKOWNER = 1 << 1;
export const WRITE_KILL_SUIDGID = 1 << 2;
export const RELEASE_FLUSH = 1 << 0;
export const RELEASE_FLOCK_UNLOCK = 1 << 1;
export const FSYNC_FDATASYNC = 1 << 0;
export const LK_FLOCK = 1 << 0;
export const SETXATTR_ACL_KILL_SGID = 1 << 0;

/** statx(2): which fields hold something. */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;

export const NotifyCode = {
  INVAL_INODE: 2,
  INVAL_ENTRY: 3,
  STORE: 4,
  DELETE: 6,
  /** Since 7.44: dentries older than this moment are looked up again. */
  INC_EPOCH: 8,
} as const;

/** In fuse_notify_inval_entry_out.flags: the entry stays, its time-out ends. */
export const EXPIRE_ONLY = 1;

/** struct file_lock types, as fcntl(2) numbers them on Linux. */
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;
