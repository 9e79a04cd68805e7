import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import type { Attr, MutationReply, SetAttr } from '../../proto/gen/meta.js';
import { NAME_MAX_BYTES } from '../../proto/types.js';
import type { AttrReply, Entry, Notifier, OpenReply } from '../fuse/binding.js';
import { attrOf, type MetaApi, type MutationOp, type ReadOp } from '../meta/api.js';
import { ATTR_TTL_MS, toEntry, toFileAttr } from './attr.js';
import type { FileTable } from './file-table.js';
import type { InodeCache } from './inode-cache.js';

/** What the groups of file system calls share. */
export class VfsContext {
  readonly meta: MetaApi;
  readonly inodes: InodeCache;
  readonly files: FileTable;
  readonly clock: Clock;
  readonly log: Logger;
  readonly readOnly: boolean;
  notifier: Notifier | undefined;

  constructor(parts: {
    meta: MetaApi;
    inodes: InodeCache;
    files: FileTable;
    clock: Clock;
    log: Logger;
    readOnly: boolean;
  }) {
    this.meta = parts.meta;
    this.inodes = parts.inodes;
    this.files = parts.files;
    this.clock = parts.clock;
    this.log = parts.log;
    this.readOnly = parts.readOnly;
  }

  /** Asks for attributes and remembers them. An inode that is gone is ESTALE: the kernel looks its name up again. */
  async readAttr(op: ReadOp, signal: AbortSignal): Promise<Attr> {
    const stamp = this.inodes.stamp();
    const attr = attrOf(await staleIfGone(this.meta.read(op, signal)));
    this.inodes.learn(attr, stamp, false);
    return attr;
  }

  /** @throws HoldfastError EROFS on a read-only mount */
  mutate(op: MutationOp, signal?: AbortSignal): Promise<MutationReply> {
    if (this.readOnly) return Promise.reject(new HoldfastError('EROFS'));
    return this.meta.mutate(op, signal);
  }

  /** A change of names: attributes known so far may be out of date afterwards. */
  async mutateNames(op: MutationOp, signal?: AbortSignal): Promise<MutationReply> {
    const { at } = this.inodes.stamp();
    let reply: MutationReply;
    try {
      reply = await this.mutate(op, signal);
    } finally {
      this.inodes.namespaceChanged();
    }
    // The kernel asks for a changed directory at the next use of a name in it.
    const { epoch } = this.inodes;
    for (const parent of reply.parents) this.inodes.learn(parent, { at, epoch }, true);
    return reply;
  }

  /** @returns the inode afterwards */
  async setAttr(ino: number, change: Partial<SetAttr>, signal?: AbortSignal): Promise<Attr> {
    const value: SetAttr = {
      atime: undefined,
      mtime: undefined,
      ctime: undefined,
      atimeNow: false,
      mtimeNow: false,
      killPriv: false,
      ...change,
      ino,
    };
    const stamp = this.inodes.stamp();
    const reply = await staleIfGone(this.mutate({ $case: 'setAttr', value }, signal));
    const attr = attrOf(reply.result);
    this.inodes.learn(attr, stamp, true);
    return attr;
  }

  /** The answer to a call that gives an inode to the kernel. @param attr as the server has it */
  entry(attr: Attr): Entry {
    this.inodes.tell(attr);
    return toEntry(this.files.view(attr));
  }

  /** The answer to getattr and setattr. @param attr as the server has it */
  attrReply(attr: Attr, ttlMs: number = ATTR_TTL_MS): AttrReply {
    this.inodes.tell(attr);
    return { attr: toFileAttr(this.files.view(attr)), ttlMs };
  }

  /**
   * What close-to-open asks of an open: the kernel drops pages and attributes that others have made out of date. A
   * binding that cannot tell the kernel goes round its cache.
   */
  async opened(attr: Attr): Promise<Pick<OpenReply, 'keepCache' | 'directIo'>> {
    const { keepPages, attrStale } = this.inodes.opened(attr);
    if (!attrStale) return { keepCache: keepPages };
    if (!this.notifier) return { directIo: true };
    await this.notifier.invalidateInode(attr.ino, -1, 0);
    return { keepCache: false };
  }
}

/** @throws HoldfastError ENAMETOOLONG */
export function checkName(name: Buffer): Buffer {
  if (name.length > NAME_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
  return name;
}

/** For calls that name an inode by its number, which may be gone. */
export async function staleIfGone<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof HoldfastError && error.errorName === 'ENOENT') throw new HoldfastError('ESTALE');
    throw error;
  }
}

/** The bits that a process with this umask may set. */
export function masked(mode: number, umask: number): number {
  return mode & ~(umask & 0o777);
}
