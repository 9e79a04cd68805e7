import type { RequestBuffer } from './call.js';
import {
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_MIN_MINOR_VERSION,
  INIT_OUT_BYTES,
  InitFlag,
  InitFlag2,
} from './protocol.js';
import { ARGS_AT } from './wire.js';

/** Bytes of one WRITE or READ: 256 pages, the kernel's limit. */
export const MAX_WRITE_BYTES = 1024 * 1024;
const PAGE_BYTES = 4096;
/** Read-ahead and other background requests that the kernel keeps with us at a time. */
const MAX_BACKGROUND_REQUESTS = 64;
const CONGESTION_THRESHOLD_REQUESTS = 48;
/** Timestamps are kept to the nanosecond. */
const TIME_GRANULARITY_NS = 1;

/** What the mount asks of the kernel beyond the fixed part. */
export interface ProtocolOptions {
  /** The file system keeps and applies POSIX ACLs: the kernel checks them, and parses their xattrs. */
  posixAcl: boolean;
  /** fcntl locks come to the file system; otherwise the kernel keeps them for this mount alone. */
  posixLocks: boolean;
  /** The same for flock. */
  flockLocks: boolean;
  /** LOOKUP of "." and ".." works: file handles (NFS export, open_by_handle_at) survive the kernel's cache. */
  exportSupport: boolean;
}

/** Defaults for a file system that keeps locks, or does not. */
export function defaultProtocolOptions(keepsLocks: boolean): ProtocolOptions {
  return {
    posixAcl: true,
    posixLocks: keepsLocks,
    flockLocks: keepsLocks,
    exportSupport: true,
  };
}

/**
 * Always asked for. Not EXPLICIT_INVAL_DATA: a changed mtime or size must drop cached pages. Not WRITEBACK_CACHE: the
 * kernel would never again believe a size or time that another mount has set.
 */
const FIXED_FLAGS =
  InitFlag.ASYNC_READ |
  InitFlag.ATOMIC_O_TRUNC |
  InitFlag.BIG_WRITES |
  InitFlag.DONT_MASK |
  InitFlag.AUTO_INVAL_DATA |
  InitFlag.DO_READDIRPLUS |
  InitFlag.READDIRPLUS_AUTO |
  InitFlag.ASYNC_DIO |
  InitFlag.PARALLEL_DIROPS |
  InitFlag.ABORT_ERROR |
  InitFlag.MAX_PAGES |
  InitFlag.CACHE_SYMLINKS |
  InitFlag.HANDLE_KILLPRIV_V2 |
  InitFlag.SETXATTR_EXT |
  InitFlag.INIT_EXT;

/** struct fuse_init_in. */
export interface InitRequest {
  major: number;
  minor: number;
  maxReadahead: number;
  flags: number;
  flags2: number;
}

/** What the kernel offers with FUSE_INIT. */
export function readInit({ buf, end }: RequestBuffer): InitRequest {
  const flags = buf.readUInt32LE(ARGS_AT + 12);
  const extended = (flags & InitFlag.INIT_EXT) !== 0 && end >= ARGS_AT + 20;
  return {
    major: buf.readUInt32LE(ARGS_AT),
    minor: buf.readUInt32LE(ARGS_AT + 4),
    maxReadahead: buf.readUInt32LE(ARGS_AT + 8),
    flags,
    flags2: extended ? buf.readUInt32LE(ARGS_AT + 16) : 0,
  };
}

/** What both sides agreed to. */
export interface Agreement {
  minor: number;
  flags: number;
  flags2: number;
  maxReadahead: number;
  maxWrite: number;
}

/**
 * Takes from the kernel's offer what is wanted. Flags that the kernel does not offer are left out: their absence costs
 * speed or a feature, not correctness, down to FUSE_MIN_MINOR_VERSION.
 * @returns undefined when the kernel speaks a version that is too old
 */
export function negotiate(offer: InitRequest, options: ProtocolOptions): Agreement | undefined {
  if (offer.major !== FUSE_KERNEL_VERSION || offer.minor < FUSE_MIN_MINOR_VERSION) return undefined;
  const wanted =
    FIXED_FLAGS |
    (options.posixAcl ? InitFlag.POSIX_ACL : 0) |
    (options.posixLocks ? InitFlag.POSIX_LOCKS : 0) |
    (options.flockLocks ? InitFlag.FLOCK_LOCKS : 0) |
    (options.exportSupport ? InitFlag.EXPORT_SUPPORT : 0);
  return {
    minor: Math.min(offer.minor, FUSE_KERNEL_MINOR_VERSION),
    flags: (offer.flags & wanted) >>> 0,
    flags2: (offer.flags2 & InitFlag2.DIRECT_IO_ALLOW_MMAP) >>> 0,
    maxReadahead: offer.maxReadahead,
    maxWrite: MAX_WRITE_BYTES,
  };
}

/** struct fuse_init_out. */
export function writeInit(buf: Buffer, at: number, agreed: Agreement): number {
  buf.fill(0, at, at + INIT_OUT_BYTES);
  buf.writeUInt32LE(FUSE_KERNEL_VERSION, at);
  buf.writeUInt32LE(agreed.minor, at + 4);
  buf.writeUInt32LE(agreed.maxReadahead, at + 8);
  buf.writeUInt32LE(agreed.flags, at + 12);
  buf.writeUInt16LE(MAX_BACKGROUND_REQUESTS, at + 16);
  buf.writeUInt16LE(CONGESTION_THRESHOLD_REQUESTS, at + 18);
  buf.writeUInt32LE(agreed.maxWrite, at + 20);
  buf.writeUInt32LE(TIME_GRANULARITY_NS, at + 24);
  buf.writeUInt16LE(agreed.maxWrite / PAGE_BYTES, at + 28);
  buf.writeUInt32LE(agreed.flags2, at + 32);
  return INIT_OUT_BYTES;
}
