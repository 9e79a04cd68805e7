import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { XATTR_CREATE, XATTR_REPLACE } from '../../proto/types.js';
import { changedAttr } from '../leases/local-attr.js';
import type { VfsContext } from './context.js';

/** Directories whose attributes are kept; the oldest lose theirs. */
export const REMOVED_DIRECTORIES_MAX = 256;
/** Bytes of values of one of them. */
export const REMOVED_XATTR_BYTES_MAX = 64 * 1024;

type Values = Map<string, Buffer>;

/**
 * Extended attributes of directories that were removed while they are in use here: the servers have forgotten them, so this
 * mount keeps what is set from then on. What they had before, if anything, is not known any more.
 */
export class RemovedXattrs {
  readonly #context: VfsContext;
  readonly #directories = new Map<number, Values>();

  constructor(context: VfsContext) {
    this.#context = context;
  }

  /** @returns undefined: it is not such a directory, or it had attributes that nobody knows any more */
  of(ino: number): Values | undefined {
    const attr = this.#context.removedDirectory(ino);
    if (!attr) return undefined;
    return this.#directories.get(ino) ?? (attr.hasXattrs === false ? new Map() : undefined);
  }

  /** @throws HoldfastError EEXIST, ENODATA, ENOSPC */
  set(ino: number, values: Values, name: string, value: Buffer, flags: number): void {
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) !== 0) throw new HoldfastError('EINVAL');
    const known = values.has(name);
    if (known && (flags & XATTR_CREATE) !== 0) throw new HoldfastError('EEXIST');
    if (!known && (flags & XATTR_REPLACE) !== 0) throw new HoldfastError('ENODATA');
    let bytes = value.length + name.length;
    for (const [other, kept] of values) if (other !== name) bytes += other.length + kept.length;
    if (bytes > REMOVED_XATTR_BYTES_MAX) throw new HoldfastError('ENOSPC');
    values.set(name, Buffer.from(value));
    this.#changed(ino, values);
  }

  /** @throws HoldfastError ENODATA */
  remove(ino: number, values: Values, name: string): void {
    if (!values.delete(name)) throw new HoldfastError('ENODATA');
    this.#changed(ino, values);
  }

  #changed(ino: number, values: Values): void {
    this.#directories.delete(ino);
    this.#directories.set(ino, values);
    const [oldest] = this.#directories.keys();
    if (this.#directories.size > REMOVED_DIRECTORIES_MAX) this.#directories.delete(oldest as number);
    const now = this.#context.clock.wall();
    const attr = this.#context.removedDirectory(ino) as Attr;
    this.#context.inodes.setLocal(changedAttr(attr, { ctime: now }, now));
  }
}
