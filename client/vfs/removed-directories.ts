import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { S_IFDIR, S_IFMT, XATTR_CREATE, XATTR_REPLACE } from '../../proto/types.js';
import { type Answer, andThen } from '../answer.js';
import { copyOfAttr } from '../attr-copy.js';
import { changedAttr, renamed } from '../leases/local-attr.js';
import { resultOf } from '../meta/api.js';
import type { Interrupt } from '../wait.js';
import type { VfsContext } from './context.js';

/** Directories whose attributes are kept; the oldest lose theirs. */
export const REMOVED_DIRECTORIES_MAX = 256;
/** Bytes of values of one of them. */
export const REMOVED_XATTR_BYTES_MAX = 64 * 1024;

type Values = Map<string, Buffer>;

/**
 * Directories that this mount has removed while they are open here: the servers have forgotten them, so what they had is
 * asked for before they go, and what is set from then on is kept here. Of one that is in use in another way (somebody's
 * present directory) the extended attributes that it had are not known any more.
 */
export class RemovedDirectories {
  readonly #context: VfsContext;
  readonly #isOpen: (ino: number) => boolean;
  readonly #directories = new Map<number, Values>();

  constructor(context: VfsContext, isOpen: (ino: number) => boolean) {
    this.#context = context;
    this.#isOpen = isOpen;
  }

  /** Makes a change that takes the name from an inode. @returns when the kernel knows, too */
  during(ino: number, signal: Interrupt, change: () => Answer<void>): Answer<void> {
    const attr = this.#context.inodes.known(ino);
    if (!attr || (attr.mode & S_IFMT) !== S_IFDIR || !this.#isOpen(ino)) return change();
    const none = this.#context.inodes.fresh(ino)?.attr.hasXattrs === false;
    const had = none ? new Map() : this.#read(ino, signal).catch(() => undefined);
    return andThen(had, (values) => andThen(change(), () => this.#gone(ino, values, signal)));
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
    const others = new Map(values).set(name, value);
    if (bytesOf(others) > REMOVED_XATTR_BYTES_MAX) throw new HoldfastError('ENOSPC');
    values.set(name, Buffer.from(value));
    this.#changed(ino, values);
  }

  /** @throws HoldfastError ENODATA */
  remove(ino: number, values: Values, name: string): void {
    if (!values.delete(name)) throw new HoldfastError('ENODATA');
    this.#changed(ino, values);
  }

  async #read(ino: number, signal: Interrupt): Promise<Values | undefined> {
    const listed = await this.#context.askFor(ino, { $case: 'listXattr', value: { ino } }, signal);
    const values: Values = new Map();
    for (const name of resultOf(listed.result, 'names').names) {
      const { result } = await this.#context.askFor(ino, { $case: 'getXattr', value: { ino, name } }, signal);
      values.set(name.toString('latin1'), resultOf(result, 'value'));
    }
    return bytesOf(values) <= REMOVED_XATTR_BYTES_MAX ? values : undefined;
  }

  /** It has lost its name, which changes its ctime; or, when another mount came first, something else has. */
  async #gone(ino: number, values: Values | undefined, signal: Interrupt): Promise<void> {
    const { inodes, clock, notifier, log } = this.#context;
    if (!this.#context.removedDirectory(ino) && (await this.#isThere(ino, signal))) return;
    const attr = inodes.known(ino);
    if (!attr) return;
    const last = attr.nlink === 0 ? copyOfAttr(attr) : renamed(attr, clock.wall(), attr.nlink);
    last.hasXattrs = values?.size !== 0;
    inodes.setLocal(last);
    if (values && values.size > 0) this.#keep(ino, values);
    await notifier
      ?.invalidateInode(ino, -1, 0)
      .catch((error: unknown) => log.warn({ ino, err: error }, 'invalidation failed'));
  }

  /** Whether the servers have it. The change was made: what cannot be asked is no error of it. */
  async #isThere(ino: number, signal: Interrupt): Promise<boolean> {
    try {
      await this.#context.readAttr({ $case: 'getAttr', value: { ino } }, signal);
      return true;
    } catch (error) {
      return !(error instanceof HoldfastError) || error.errorName !== 'ESTALE';
    }
  }

  #keep(ino: number, values: Values): void {
    this.#directories.delete(ino);
    this.#directories.set(ino, values);
    const [oldest] = this.#directories.keys();
    if (this.#directories.size > REMOVED_DIRECTORIES_MAX) this.#directories.delete(oldest as number);
  }

  #changed(ino: number, values: Values): void {
    this.#keep(ino, values);
    const now = this.#context.clock.wall();
    const attr = this.#context.removedDirectory(ino) as Attr;
    this.#context.inodes.setLocal(changedAttr(attr, { ctime: now }, now));
  }
}

function bytesOf(values: Values): number {
  let bytes = 0;
  for (const [name, value] of values) bytes += name.length + value.length;
  return bytes;
}
