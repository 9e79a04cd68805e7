/** Numbers and names that all processes agree on. Every limit carries its unit. */

/** Raised with every incompatible change of a message or frame; the handshake refuses any other. */
export const PROTOCOL_VERSION = 2;

/** Leases that a client announces to a new leader in one message: decoding and noting them takes a few milliseconds. */
export const LEASES_PER_ANNOUNCEMENT_MAX = 1_024;

export const ROOT_INO = 1;
/** Inode numbers count below 2^44; the 8 bits above are kept for a shard id. */
export const MAX_INO = 2 ** 44 - 1;

export const NAME_MAX_BYTES = 255;
export const SYMLINK_MAX_BYTES = 4095;
export const XATTR_NAME_MAX_BYTES = 255;
export const XATTR_VALUE_MAX_BYTES = 65_536;
export const XATTR_LIST_MAX_BYTES = 65_536;
export const LINK_MAX = 65_000;
export const FILE_SIZE_MAX_BYTES = 2 ** 53 - 1;

export const DEFAULT_CHUNK_SIZE_BYTES = 4 * 1024 * 1024;
/** Checksums are kept for blocks of this size. */
export const BLOCK_SIZE_BYTES = 4096;
/** The largest payload of one data frame. */
export const MAX_FRAME_PAYLOAD_BYTES = 4 * 1024 * 1024 + 65_536;
/** The largest gRPC message. */
export const MAX_MESSAGE_BYTES = 8 * 1024 * 1024;

export const DEFAULT_REPLICAS = 3;
export const DEFAULT_MIN_IN_SYNC = 2;
export const DEFAULT_PG_COUNT = 48;

/** Chunkservers send a heartbeat this often; a primary's lease lasts LEASE_MS from the moment of sending. */
export const HEARTBEAT_INTERVAL_MS = 200;
export const LEASE_MS = 1500;
/** A client session that was silent for so long is expired. */
export const SESSION_TIMEOUT_MS = 30_000;
/**
 * A client believes its leases for so long after the sending of the last request that was answered. It asks every second while
 * idle, so what is short costs nothing; but a new leader may have to wait for all of it: docs/decisions/new-leader-waits.md.
 */
export const CLIENT_LEASE_MS = 8_000;
/** Behind that nobody believes a lease any more: clocks differ, and a deposed leader may answer for a moment longer. */
export const CLIENT_LEASE_OVER_MS = CLIENT_LEASE_MS + 2_000;

/** What the constants above are for one cluster; only simulations have others. */
export interface SessionTimes {
  timeoutMs: number;
  leaseMs: number;
  /** Beyond `leaseMs` by what clocks differ and a deposed leader takes to notice; below `timeoutMs`. */
  leaseOverMs: number;
}

export const SESSION_TIMES: SessionTimes = {
  timeoutMs: SESSION_TIMEOUT_MS,
  leaseMs: CLIENT_LEASE_MS,
  leaseOverMs: CLIENT_LEASE_OVER_MS,
};
/** Changes in one MutationBatch. */
export const BATCH_MUTATIONS_MAX = 512;
/** Pending truncates of one inode; a further one waits. */
export const MAX_PENDING_TRUNCATES = 16;

export const S_IFMT = 0o170000;
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFDIR = 0o040000;
export const S_IFBLK = 0o060000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFSOCK = 0o140000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_ISVTX = 0o1000;
export const S_IXGRP = 0o010;
/** What chmod(2) sets: permissions, setuid, setgid and sticky. */
export const PERMISSION_BITS = 0o7777;
/** Of every symbolic link. */
export const SYMLINK_MODE = S_IFLNK | 0o777;
/** The type of a directory entry is its inode's mode without what lies below: d_type of readdir(3). */
export const TYPE_SHIFT = 12;
/** What st_size says of every directory. */
export const DIRECTORY_SIZE_BYTES = 4096;

export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
/** Leaves a character device 0:0, which overlay file systems take for a removed name. */
export const RENAME_WHITEOUT = 4;
export const ACL_ACCESS_NAME = 'system.posix_acl_access';
export const ACL_DEFAULT_NAME = 'system.posix_acl_default';
export const CAPABILITY_NAME = 'security.capability';
/** Attr.xattr_kinds. */
export const HAS_ACCESS_ACL = 1;
export const HAS_DEFAULT_ACL = 2;
export const HAS_CAPABILITY = 4;
export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;

/**
 * The placement group of a file's chunk: (hash(inode) + chunk) mod PGs, so that neighbouring chunks lie in
 * neighbouring groups. The hash is part of the on-disk format: murmur3's 32-bit finaliser over the low word of the
 * inode number, xored with the one over its high word (Appleby, MurmurHash3, public domain).
 */
export function pgOfChunk(ino: number, chunk: number, pgCount: number): number {
  const hash = (mix32(ino >>> 0) ^ mix32(Math.floor(ino / 0x1_0000_0000) >>> 0)) >>> 0;
  return (hash + chunk) % pgCount;
}

function mix32(value: number): number {
  let h = value | 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return h >>> 0;
}
