import { deferred } from '../../../common/deferred.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { Notifier } from '../binding.js';
import { type FuseDevice, systemErrorCode } from './device.js';
import { EXPIRE_ONLY, NotifyCode, OUT_HEADER_BYTES } from './protocol.js';
import type { TakenIn } from './taken-in.js';
import { writeOutHeader, writeS64, writeU64 } from './wire.js';

/** Notifications that wait for their turn; a further one is refused. */
export const MAX_QUEUED_NOTIFICATIONS = 65_536;

/** With fewer threads for notifications none is given to bytes for the kernel's pages. */
const WRITES_WITH_STORES_MIN = 5;

/** The kernel did not have it cached, or the mount has gone with its cache. */
const NOTHING_TO_DROP = new Set(['ENOENT', 'ENOTCONN', 'ENODEV', 'ECONNABORTED', 'EBADF']);

function message(code: number, bodyBytes: number): Buffer {
  const buf = Buffer.alloc(OUT_HEADER_BYTES + bodyBytes);
  writeOutHeader(buf, buf.length, code, 0);
  return buf;
}

/** struct fuse_notify_inval_inode_out. */
export function invalInodeMessage(ino: number, offset: number, length: number): Buffer {
  const buf = message(NotifyCode.INVAL_INODE, 24);
  writeU64(buf, OUT_HEADER_BYTES, ino);
  writeS64(buf, OUT_HEADER_BYTES + 8, offset);
  writeS64(buf, OUT_HEADER_BYTES + 16, length);
  return buf;
}

/** struct fuse_notify_inval_entry_out, the name and its NUL. */
export function invalEntryMessage(parent: number, name: Buffer, flags = 0): Buffer {
  const buf = message(NotifyCode.INVAL_ENTRY, 16 + name.length + 1);
  writeU64(buf, OUT_HEADER_BYTES, parent);
  buf.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8);
  buf.writeUInt32LE(flags, OUT_HEADER_BYTES + 12);
  name.copy(buf, OUT_HEADER_BYTES + 16);
  return buf;
}

/** struct fuse_notify_store_out and the bytes. */
export function storeMessage(ino: number, offset: number, data: Buffer): Buffer {
  const buf = message(NotifyCode.STORE, 24 + data.length);
  writeU64(buf, OUT_HEADER_BYTES, ino);
  writeU64(buf, OUT_HEADER_BYTES + 8, offset);
  buf.writeUInt32LE(data.length, OUT_HEADER_BYTES + 16);
  data.copy(buf, OUT_HEADER_BYTES + 24);
  return buf;
}

/** struct fuse_notify_delete_out, the name and its NUL. */
export function deleteMessage(parent: number, child: number, name: Buffer): Buffer {
  const buf = message(NotifyCode.DELETE, 24 + name.length + 1);
  writeU64(buf, OUT_HEADER_BYTES, parent);
  writeU64(buf, OUT_HEADER_BYTES + 8, child);
  buf.writeUInt32LE(name.length, OUT_HEADER_BYTES + 16);
  name.copy(buf, OUT_HEADER_BYTES + 24);
  return buf;
}

interface Queued {
  message: Buffer;
  done: { resolve(): void; reject(error: unknown): void };
}

/** Writes notifications from pool threads, at most `maxWrites` at a time. */
class WriteQueue {
  private readonly queue: Queued[] = [];
  private head = 0;
  private writing = 0;

  constructor(
    private readonly device: FuseDevice,
    private readonly maxWrites: number,
  ) {}

  push(bytes: Buffer): Promise<void> {
    if (this.queue.length - this.head >= MAX_QUEUED_NOTIFICATIONS) {
      return Promise.reject(new HoldfastError('OVERLOADED', 'invalidations of the kernel cache'));
    }
    const done = deferred<void>();
    this.queue.push({ message: bytes, done });
    this.pump();
    return done.promise;
  }

  private pump(): void {
    while (this.writing < this.maxWrites && this.head < this.queue.length) {
      const next = this.queue[this.head++]!;
      this.writing++;
      void this.write(next);
    }
    if (this.head === this.queue.length) {
      this.queue.length = 0;
      this.head = 0;
    }
  }

  private async write({ message: bytes, done }: Queued): Promise<void> {
    try {
      await this.device.notify(bytes);
      done.resolve();
    } catch (error) {
      if (NOTHING_TO_DROP.has(systemErrorCode(error) ?? '')) done.resolve();
      else done.reject(error);
    }
    this.writing--;
    this.pump();
  }
}

/**
 * The kernel may block a notification until a page is unlocked or a dirty page is written back, which takes further
 * requests to this process: so there must always be threads left for the readers. Notifications of names wait for the
 * kernel's lock on their directory, possibly for long: they have their own threads, so that nothing else waits with them.
 * Bytes for pages are the least urgent: they have one thread, where there are enough.
 */
export class KernelNotifier implements Notifier {
  private readonly inodes: WriteQueue;
  private readonly names: WriteQueue;
  readonly storePages?: (ino: number, offset: number, data: Buffer) => Promise<void>;

  /** @param maxWrites threads that may be lost to blocked notifications */
  constructor(
    private readonly device: FuseDevice,
    maxWrites: number,
    private readonly answers?: Pick<TakenIn, 'of' | 'hasListing'>,
  ) {
    const forPages = maxWrites >= WRITES_WITH_STORES_MIN ? 1 : 0;
    const forNames = Math.floor((maxWrites - forPages) / 2);
    this.names = new WriteQueue(device, Math.max(1, forNames));
    this.inodes = new WriteQueue(device, Math.max(1, maxWrites - forPages - forNames));
    if (forPages === 0) return;
    const pages = new WriteQueue(device, forPages);
    this.storePages = (ino, offset, data) => pages.push(storeMessage(ino, offset, data));
  }

  takenIn(ino: number): Promise<void> | undefined {
    return this.answers?.of(ino);
  }

  takesInNames(): boolean {
    return this.answers?.hasListing() ?? false;
  }

  invalidateInode(ino: number, offset: number, length: number): Promise<void> {
    return this.inodes.push(invalInodeMessage(ino, offset, length));
  }

  invalidateEntry(parent: number, name: Buffer): Promise<void> {
    return this.names.push(invalEntryMessage(parent, name));
  }

  expireEntry(parent: number, name: Buffer): Promise<void> {
    return this.names.push(invalEntryMessage(parent, name, EXPIRE_ONLY));
  }

  deleteEntry(parent: number, child: number, name: Buffer): Promise<void> {
    return this.names.push(deleteMessage(parent, child, name));
  }

  storeFile(ino: number, data: Buffer): boolean {
    try {
      this.device.notifyNow(storeMessage(ino, 0, data));
      return true;
    } catch {
      return false; // it is read as any other file, and what is wrong with the device shows there
    }
  }

  expireAttr(ino: number): void {
    try {
      this.device.notifyNow(invalInodeMessage(ino, -1, 0));
    } catch (error) {
      if (!NOTHING_TO_DROP.has(systemErrorCode(error) ?? '')) throw error;
    }
  }

  forgetNames(): boolean {
    try {
      this.device.notifyNow(message(NotifyCode.INC_EPOCH, 0));
      return true;
    } catch (error) {
      if (NOTHING_TO_DROP.has(systemErrorCode(error) ?? '')) return true;
      if (systemErrorCode(error) === 'EINVAL') return false;
      throw error;
    }
  }
}
