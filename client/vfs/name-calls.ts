import { HoldfastError } from '../../proto/errors.js';
import type { MakeNode } from '../../proto/gen/meta.js';
import {
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  SYMLINK_MAX_BYTES,
} from '../../proto/types.js';
import type { Caller, Entry } from '../fuse/binding.js';
import { attrOf, resultOf } from '../meta/api.js';
import { checkName, masked, staleIfGone, type VfsContext } from './context.js';

/** Calls on names: each is one request to the metadata service. */
export class NameCalls {
  readonly #context: VfsContext;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  async lookup(caller: Caller, parent: number, name: Buffer): Promise<Entry> {
    checkName(name);
    const { meta, inodes } = this.#context;
    const stamp = inodes.stamp();
    const result = await meta.read({ $case: 'lookup', value: { parent, name } }, caller.signal);
    const attr = attrOf(result);
    inodes.learn(attr, stamp, false);
    return this.#context.entry(attr);
  }

  async symlink(caller: Caller, parent: number, name: Buffer, target: Buffer): Promise<Entry> {
    if (target.length > SYMLINK_MAX_BYTES) throw new HoldfastError('ENAMETOOLONG');
    return this.#make(caller, { parent, name, mode: S_IFLNK | 0o777, target });
  }

  mknod(
    caller: Caller,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry> {
    const type = mode & S_IFMT || S_IFREG;
    return this.#make(caller, {
      parent,
      name,
      mode: type | (masked(mode, umask) & 0o7777),
      askedMode: mode & 0o7777,
      rdev,
    });
  }

  mkdir(caller: Caller, parent: number, name: Buffer, mode: number, umask: number): Promise<Entry> {
    return this.#make(caller, {
      parent,
      name,
      mode: S_IFDIR | (masked(mode, umask) & 0o7777),
      askedMode: mode & 0o7777,
    });
  }

  async unlink(caller: Caller, parent: number, name: Buffer): Promise<void> {
    const value = { parent, name: checkName(name), uid: caller.uid };
    await this.#context.mutateNames({ $case: 'unlink', value }, caller.signal);
  }

  async rmdir(caller: Caller, parent: number, name: Buffer): Promise<void> {
    const value = { parent, name: checkName(name), uid: caller.uid };
    await this.#context.mutateNames({ $case: 'rmdir', value }, caller.signal);
  }

  async rename(
    caller: Caller,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<void> {
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) throw new HoldfastError('EINVAL');
    checkName(name);
    checkName(newName);
    const value = { parent, name, newParent, newName, flags, uid: caller.uid };
    await this.#context.mutateNames({ $case: 'rename', value }, caller.signal);
  }

  async link(caller: Caller, ino: number, newParent: number, newName: Buffer): Promise<Entry> {
    const value = { ino, parent: newParent, name: checkName(newName) };
    const reply = await this.#context.mutateNames({ $case: 'link', value }, caller.signal);
    const attr = attrOf(reply.result);
    this.#context.inodes.learn(attr, this.#context.inodes.stamp(), true);
    return this.#context.entry(attr);
  }

  async readlink(caller: Caller, ino: number): Promise<Buffer> {
    const { meta } = this.#context;
    const result = await staleIfGone(meta.read({ $case: 'readLink', value: { ino } }, caller.signal));
    return resultOf(result, 'target');
  }

  async #make(
    caller: Caller,
    node: Pick<MakeNode, 'parent' | 'name' | 'mode'> & Partial<MakeNode>,
  ): Promise<Entry> {
    const attr = attrOf((await makeNode(this.#context, caller, node)).result);
    this.#context.inodes.learn(attr, this.#context.inodes.stamp(), false);
    return this.#context.entry(attr);
  }
}

/** The one request behind create, mknod, mkdir and symlink; the owner is the caller. */
export function makeNode(
  context: VfsContext,
  caller: Caller,
  node: Pick<MakeNode, 'parent' | 'name' | 'mode'> & Partial<MakeNode>,
) {
  checkName(node.name);
  const { uid, gid } = caller;
  const defaults = { rdev: 0, target: EMPTY, existingOk: false, open: false };
  return context.mutateNames({ $case: 'makeNode', value: { ...defaults, uid, gid, ...node } }, caller.signal);
}

const EMPTY = Buffer.alloc(0);
