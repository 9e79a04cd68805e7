import { LruMap } from '../../../common/lru-map.js';
import { S_IFDIR, S_IFMT } from '../../../proto/types.js';
import type { FileAttr } from '../binding.js';
import type { Call } from './call.js';
import { Opcode } from './protocol.js';

/** Directories remembered; of any other one it is not known who was told of it. */
export const DIRECTORIES_MAX = 4096;

/** In the place of a thread. */
const NOBODY = -1;
const SEVERAL = -2;
/** Of a kernel's thread, or one of another PID namespace. */
const UNKNOWN_THREAD = 0;

interface Told {
  /** Who was given the directory's attributes since its names were changed last, or the kernel was told to take them no more. */
  by: number;
  /** Of the last listing with attributes before that. */
  listing: number;
}

/** Answers that carry the attributes of an inode, or of a new name's. */
type WithAttr = { readonly attr: FileAttr };

const TELLS = new Set<number>([Opcode.GETATTR, Opcode.STATX, Opcode.LOOKUP]);
const CHANGES_NAMES = new Set<number>([
  Opcode.SYMLINK,
  Opcode.MKNOD,
  Opcode.MKDIR,
  Opcode.UNLINK,
  Opcode.RMDIR,
  Opcode.RENAME,
  Opcode.RENAME2,
  Opcode.LINK,
  Opcode.CREATE,
]);

/**
 * The kernel takes attributes out of an answer when the thread that asked runs again, which may be behind the end of another
 * thread's change of names: then it believes, for as long as it was told to, what was before that change. Of files it
 * notices; of a directory it does only when it was told in between to forget the directory's attributes. That is
 * needed where somebody else than who changes its names was given them last, for a thread has taken each of its own answers.
 */
export class AttrOrder {
  readonly #directories = new LruMap<number, Told>();
  readonly #expire: (directory: number) => void;
  /** Listings with attributes: how many so far, whose the last one was, and which was the last one of somebody else. */
  #listings = 0;
  #lister = NOBODY;
  #listingOfOther = 0;

  /** @param expire makes the kernel drop a directory's attributes, and ignore those of answers to what it has asked before */
  constructor(expire: (directory: number) => void) {
    this.#expire = expire;
  }

  /** To be called when what the answer says is true, and before it is given. */
  answering(call: Call, result: unknown): void {
    const { opcode, ino, pid } = call;
    if (CHANGES_NAMES.has(opcode)) {
      this.#changed(ino, pid);
      if (call.newParent !== undefined && call.newParent !== ino) this.#changed(call.newParent, pid);
      if (opcode === Opcode.MKDIR) this.#note((result as WithAttr).attr.ino).by = threadOf(pid);
    } else if (opcode === Opcode.READDIRPLUS) this.#listed(threadOf(pid));
    else if (TELLS.has(opcode)) this.#told((result as WithAttr).attr, threadOf(pid));
  }

  #told({ ino, mode }: FileAttr, thread: number): void {
    if ((mode & S_IFMT) !== S_IFDIR) return;
    const told = this.#directories.get(ino);
    if (!told) this.#note(ino).by = SEVERAL;
    else if (told.by !== thread) told.by = told.by === NOBODY ? thread : SEVERAL;
  }

  #listed(thread: number): void {
    if (thread !== this.#lister || thread === SEVERAL) this.#listingOfOther = this.#listings;
    this.#listings++;
    this.#lister = thread;
  }

  #changed(directory: number, pid: number): void {
    const thread = threadOf(pid);
    const told = this.#directories.get(directory);
    if (!told || !this.#knows(told, thread)) this.#expire(directory);
    this.#note(directory).by = NOBODY;
  }

  /** Whether nobody but this thread was given the directory's attributes. */
  #knows({ by, listing }: Told, thread: number): boolean {
    if (by !== NOBODY && (by !== thread || thread === SEVERAL)) return false;
    const ofOthers = this.#lister === thread && thread !== SEVERAL ? this.#listingOfOther : this.#listings;
    return ofOthers <= listing;
  }

  #note(directory: number): Told {
    const told = this.#directories.get(directory) ?? { by: NOBODY, listing: 0 };
    told.listing = this.#listings;
    this.#directories.set(directory, told);
    if (this.#directories.size > DIRECTORIES_MAX) this.#directories.shift();
    return told;
  }
}

/** Threads that cannot be told apart are never one. */
function threadOf(pid: number): number {
  return pid === UNKNOWN_THREAD ? SEVERAL : pid;
}
