import fs from 'node:fs';
import path from 'node:path';
import { systemClock } from './clock.js';
import { DirectReader } from './direct-reads.js';
import { DIRECT_PART_MIN_BYTES, DirectWriter, type WriteRun, writeRuns } from './direct-writes.js';

/** An open file; every call names its position, so that calls need no order among themselves. */
export interface DiskFile {
  /** Writes all of `parts`, one after the other, from `position` on. The buffers must not change until it resolves. */
  write(parts: readonly Buffer[], position: number): Promise<void>;
  /** Fills `target` from `position` on; fewer bytes only at the end of the file. */
  read(target: Buffer, position: number): Promise<number>;
  /**
   * read() by the calling thread, which may wait for a fast disk but not for a slow one; undefined: use read(). Absent: always.
   * @throws the disk's error
   */
  readNow?(target: Buffer, position: number): number | undefined;
  /** Makes what was written before durable. After an error nothing may be assumed about it, and a retry proves nothing. */
  datasync(): Promise<void>;
  size(): Promise<number>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

export interface DiskSpace {
  totalBytes: number;
  /** What this user may still write. */
  freeBytes: number;
}

/** `create` makes a new file and fails with EEXIST when there is one. */
export type OpenMode = 'read' | 'write' | 'create';

/**
 * All file access of logs and stores, so that tests and the simulator can hand in a disk that fails. Errors carry
 * Node's `code` (ENOENT, ENOSPC, EIO).
 */
export interface Disk {
  open(file: string, mode: OpenMode): Promise<DiskFile>;
  /** Makes the directory and its parents; one that exists is no error. */
  mkdir(dir: string): Promise<void>;
  /** Names in the directory, without order. */
  list(dir: string): Promise<string[]>;
  unlink(file: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Makes creations, renames and unlinks in the directory durable. */
  syncDir(dir: string): Promise<void>;
  space(dir: string): Promise<DiskSpace>;
}

/** Errors of the system carry a code such as ENOENT. */
export function diskErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Reads a whole file. @throws the disk's error, ENOENT among others */
export async function readWholeFile(disk: Disk, file: string): Promise<Buffer> {
  const handle = await disk.open(file, 'read');
  try {
    const data = Buffer.alloc(await handle.size());
    const got = await handle.read(data, 0);
    return data.subarray(0, got);
  } finally {
    await handle.close();
  }
}

/** Replaces a file by new content, durably: afterwards, and after a crash at any moment, it is the old or the new one. */
export async function replaceFile(disk: Disk, file: string, content: Buffer): Promise<void> {
  const temporary = `${file}.tmp`;
  await disk.unlink(temporary).catch((error: unknown) => {
    if (diskErrorCode(error) !== 'ENOENT') throw error;
  });
  const handle = await disk.open(temporary, 'create');
  try {
    await handle.write([content], 0);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  await disk.rename(temporary, file);
  await disk.syncDir(path.dirname(file));
}

const OPEN_FLAGS: Record<OpenMode, string> = { read: 'r', write: 'r+', create: 'wx+' };

/** Writes up to this size are made by the calling thread. */
const SYNCHRONOUS_WRITE_MAX_BYTES = 32 * 1024;

/** Reads up to this size may be made by the calling thread. */
const SYNCHRONOUS_READ_MAX_BYTES = 64 * 1024;
/** Syncs of no more than so many bytes may be made by the calling thread. */
const SYNCHRONOUS_SYNC_MAX_BYTES = 128 * 1024;
/** A call that takes longer had to wait for a disk that is slow, or busy .. */
const SLOW_CALL_MS = 2;
/** .. and so many calls after it are left to the thread pool, where they wait side by side; twice as many after the next slow one. */
const POOL_CALLS_MIN = 8;
const POOL_CALLS_MAX = 1024;

/**
 * Decides from how long calls of the calling thread took whether the next one may be made by it: the way to the thread pool and
 * back costs more than a call that hardly waits.
 */
export class PoolBackoff {
  private left = 0;
  private next = POOL_CALLS_MIN;

  /** False: the thread pool is to make it. */
  mayCall(): boolean {
    if (this.left === 0) return true;
    this.left--;
    return false;
  }

  /** A call of the calling thread took so long. */
  took(ms: number): void {
    if (ms < SLOW_CALL_MS) {
      this.next = POOL_CALLS_MIN;
      return;
    }
    this.left = this.next;
    this.next = Math.min(POOL_CALLS_MAX, 2 * this.next);
  }
}

/** Callback functions of node:fs on a bare descriptor: about half the cost of node:fs/promises. */
class NodeFile implements DiskFile {
  private syncing = 0;
  /** Written since the last sync began. */
  private unsyncedBytes = 0;
  private readonly reads = new PoolBackoff();
  private readonly syncs = new PoolBackoff();
  private readonly direct: DirectWriter;
  private readonly directReads: DirectReader;

  constructor(
    private readonly fd: number,
    path: string,
  ) {
    this.direct = new DirectWriter(path);
    this.directReads = new DirectReader(path);
  }

  write(parts: readonly Buffer[], position: number): Promise<void> {
    const bytes = sumOf(parts);
    if (bytes < DIRECT_PART_MIN_BYTES) return this.writeCached(parts, position, bytes);
    return this.writeLarge(writeRuns(parts, position));
  }

  /** One run after the other, so that a file grows from its end on. */
  private async writeLarge(runs: readonly WriteRun[]): Promise<void> {
    for (const run of runs) {
      const written = run.direct ? await this.direct.write(run) : 0;
      const rest = skipBytes(run.parts, written);
      if (rest.length > 0) await this.writeCached(rest, run.position + written, sumOf(rest));
    }
  }

  private writeCached(parts: readonly Buffer[], position: number, bytes: number): Promise<void> {
    this.unsyncedBytes += bytes;
    // A few pages into the page cache take less time than the way to the thread pool and back; but while the file is
    // being synced a write may wait for the journal, and only a thread of the pool may wait.
    if (bytes <= SYNCHRONOUS_WRITE_MAX_BYTES && this.syncing === 0) {
      return this.writeNow(parts, position, bytes);
    }
    return new Promise((resolve, reject) => this.writeFrom(parts, position, resolve, reject));
  }

  private async writeNow(parts: readonly Buffer[], position: number, bytes: number): Promise<void> {
    const written = fs.writevSync(this.fd, parts, position);
    if (written === bytes) return;
    await new Promise<void>((resolve, reject) =>
      this.writeFrom(skipBytes(parts, written), position + written, resolve, reject),
    );
  }

  private writeFrom(
    parts: readonly Buffer[],
    position: number,
    resolve: () => void,
    reject: (error: Error) => void,
  ): void {
    fs.writev(this.fd, parts, position, (error, written) => {
      if (error) return reject(error);
      const rest = skipBytes(parts, written);
      if (rest.length === 0) return resolve();
      if (written === 0) return reject(new Error('the disk took no bytes'));
      return this.writeFrom(rest, position + written, resolve, reject);
    });
  }

  read(target: Buffer, position: number): Promise<number> {
    const direct = this.directReads.wants(target.length, position, systemClock.now());
    return direct ? this.readDirect(target, position) : this.readCached(target, position);
  }

  private async readDirect(target: Buffer, position: number): Promise<number> {
    return (await this.directReads.read(target, position)) ?? this.readCached(target, position);
  }

  private readCached(target: Buffer, position: number): Promise<number> {
    return new Promise((resolve, reject) => this.readInto(target, 0, position, resolve, reject));
  }

  readNow(target: Buffer, position: number): number | undefined {
    if (target.length > SYNCHRONOUS_READ_MAX_BYTES || !this.reads.mayCall()) return undefined;
    const started = systemClock.now();
    const got = fs.readSync(this.fd, target, 0, target.length, position);
    this.reads.took(systemClock.now() - started);
    return got === target.length ? got : undefined;
  }

  private readInto(
    target: Buffer,
    done: number,
    position: number,
    resolve: (bytes: number) => void,
    reject: (error: Error) => void,
  ): void {
    fs.read(this.fd, target, done, target.length - done, position + done, (error, got) => {
      if (error) return reject(error);
      if (got === 0 || done + got === target.length) return resolve(done + got);
      return this.readInto(target, done + got, position, resolve, reject);
    });
  }

  async datasync(): Promise<void> {
    const small = this.unsyncedBytes <= SYNCHRONOUS_SYNC_MAX_BYTES && this.syncing === 0;
    this.unsyncedBytes = 0;
    if (small && this.syncs.mayCall()) {
      const started = systemClock.now();
      fs.fdatasyncSync(this.fd);
      this.syncs.took(systemClock.now() - started);
      return;
    }
    this.syncing++;
    try {
      await settle((done) => fs.fdatasync(this.fd, done));
    } finally {
      this.syncing--;
    }
  }

  size(): Promise<number> {
    return new Promise((resolve, reject) =>
      fs.fstat(this.fd, (error, stats) => (error ? reject(error) : resolve(stats.size))),
    );
  }

  truncate(length: number): Promise<void> {
    return settle((done) => fs.ftruncate(this.fd, length, done));
  }

  async close(): Promise<void> {
    await Promise.all([this.direct.close(), this.directReads.close()]);
    await settle((done) => fs.close(this.fd, done));
  }
}

function settle(call: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())));
}

function sumOf(parts: readonly Buffer[]): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}

function skipBytes(parts: readonly Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  const rest: Buffer[] = [];
  for (const part of parts) {
    if (left >= part.length) left -= part.length;
    else {
      rest.push(left > 0 ? part.subarray(left) : part);
      left = 0;
    }
  }
  return rest;
}

/** The file system of this machine. */
export const nodeDisk: Disk = {
  async open(file, mode) {
    const fd = await new Promise<number>((resolve, reject) =>
      fs.open(file, OPEN_FLAGS[mode], 0o600, (error, opened) => (error ? reject(error) : resolve(opened))),
    );
    return new NodeFile(fd, file);
  },
  async mkdir(dir) {
    await fs.promises.mkdir(dir, { recursive: true, mode: 0o700 });
  },
  list: (dir) => fs.promises.readdir(dir),
  unlink: (file) => fs.promises.unlink(file),
  rename: (from, to) => fs.promises.rename(from, to),
  async syncDir(dir) {
    const handle = await fs.promises.open(dir, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  async space(dir) {
    const stats = await fs.promises.statfs(dir);
    return { totalBytes: stats.blocks * stats.bsize, freeBytes: stats.bavail * stats.bsize };
  },
};
