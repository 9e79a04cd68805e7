import { LruMap } from '../../common/lru-map.js';
import { HoldfastError } from '../../proto/errors.js';

/** Names remembered; of another one it is not known what the kernel takes it for. */
const NAMES_MAX = 16_384;
/** Directories whose former place the kernel has yet to drop. */
const LEFT_MAX = 256;

/** A name in a directory. */
export interface Place {
  readonly parent: number;
  readonly name: Buffer;
}

/**
 * Which directories names stand for in the kernel, whether they may still be believed there or not. The kernel looks a name
 * up, takes its lock on the directory around it, and asks for the removal, or for another directory in its place; behind the
 * answer it marks the inode dead that it found, whatever was removed: as long as that inode is in use, no name can be made in
 * it. Where another mount gave the name to something else in between, the call is refused with ESTALE: the kernel looks the
 * name up again, and repeats the call once (vfs_rmdir, vfs_rename and retry_estale in Linux' fs/namei.c).
 */
export class KernelDentries {
  readonly #directories = new LruMap<string, number>();
  /** Of each of them, the name that the kernel has it by: a directory has one. */
  readonly #places = new Map<number, Place>();
  readonly #left = new LruMap<number, Place>();

  /** The kernel is told what a name stands for. @param directory the inode, if that is a directory; 0: something else, or nothing */
  told(parent: number, name: Buffer, directory: number): void {
    const place = directory === 0 ? undefined : this.#places.get(directory);
    if (place && place.parent !== parent) {
      this.#left.set(directory, place);
      if (this.#left.size > LEFT_MAX) this.#left.shift();
    }
    this.#note(parent, name, directory);
  }

  #note(parent: number, name: Buffer, directory: number): void {
    const key = keyOf(parent, name);
    const before = this.#directories.size > 0 ? this.#directories.peek(key) : undefined;
    if (before !== undefined && before !== directory) this.#forget(key, before);
    if (directory === 0) return;
    this.#directories.set(key, directory);
    this.#places.set(directory, { parent, name });
    if (this.#directories.size <= NAMES_MAX) return;
    const [oldest, ino] = this.#directories.shift() as [string, number];
    this.#forget(oldest, ino);
  }

  #forget(key: string, directory: number): void {
    this.#directories.delete(key);
    const place = this.#places.get(directory);
    if (place && keyOf(place.parent, place.name) === key) this.#places.delete(directory);
  }

  /**
   * Another mount has moved a directory since the kernel was told of it in another one: the kernel takes it over at its next
   * lookup, but not at one within rename(2), which ends with ESTALE for as long as the kernel has the former name. (In d_splice_alias
   * of Linux' fs/dcache.c, of a lock that rename holds.)
   * @returns that name, once
   */
  takeLeft(directory: number): Place | undefined {
    const place = this.#left.size > 0 ? this.#left.peek(directory) : undefined;
    if (!place) return undefined;
    this.#left.delete(directory);
    // It may have come back by now.
    return place.parent === this.#places.get(directory)?.parent ? undefined : place;
  }

  /** When a call arrives that removes the name: the kernel asks for nothing of that name until it is answered. */
  get(parent: number, name: Buffer): number | undefined {
    return this.#directories.size > 0 ? this.#directories.peek(keyOf(parent, name)) : undefined;
  }

  /** The kernel moves what it has of one name to another. */
  moved(parent: number, name: Buffer, newParent: number, newName: Buffer, exchange: boolean): void {
    const [from, to] = [this.get(parent, name), this.get(newParent, newName)];
    this.#note(parent, name, 0);
    this.#note(newParent, newName, from ?? 0);
    if (exchange && to) this.#note(parent, name, to);
  }
}

/** @throws HoldfastError ESTALE: the kernel takes a name for another directory than it stands for, so far as both are known */
export function checkTaken(taken: number | undefined, standsFor: number | 'absent' | undefined): void {
  if (taken !== undefined && standsFor !== undefined && taken !== standsFor)
    throw new HoldfastError('ESTALE');
}

function keyOf(parent: number, name: Buffer): string {
  return `${parent}/${name.toString('latin1')}`;
}
