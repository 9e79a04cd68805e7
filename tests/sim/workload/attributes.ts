import type { FileAttr } from '../../../client/fuse/binding.js';
import { HoldfastError } from '../../../proto/errors.js';
import { ROOT_INO } from '../../../proto/types.js';
import type { Cells } from '../checkers/cells.js';
import { type ClientMachine, simCaller } from '../client.js';
import { type Task, Worker } from './worker.js';

const O_RDWR = 2;
const MODE = 0o644;
const TARGET = Buffer.from('nowhere');
const PAUSE_MS = 300;
/** Numbers lie far below it, times of the wall clock beyond. */
const WALL_CLOCK_MIN_SEC = 1_000_000_000;

/** Files of which only the attributes matter: the time of the last change is a number that only rises. */
export class Attributes {
  /** Inodes by name; made durably. */
  readonly inodes = new Map<string, number>();
  readonly cells: Cells;
  /** Whether a session is over: what is changed under it from then on is lost, though its client may not know yet. */
  readonly isOver: (session: number) => boolean;

  constructor(cells: Cells, isOver: (session: number) => boolean) {
    this.cells = cells;
    this.isOver = isOver;
  }

  /** What the client changed and did not sync may be gone. */
  sessionOver({ name }: ClientMachine): void {
    this.cells.writerDied(nameOf(name));
  }
}

function nameOf(client: string): string {
  return `attributes-${client}.`;
}

/**
 * A program that changes an attribute of its own file and looks at those of others, in the file system's caches: whoever is
 * cut off from everybody goes on answering from them while it believes its leases, and must be right.
 */
export class AttributesWorker extends Worker {
  readonly #attributes: Attributes;
  readonly #name: string;
  /** Every other client has a symbolic link. */
  readonly #isLink: boolean;
  /** One change after the other: the numbers only rise. */
  #changing = false;

  constructor(client: ClientMachine, attributes: Attributes) {
    super(client, PAUSE_MS);
    this.#attributes = attributes;
    this.#name = nameOf(client.name);
    this.#isLink = client.name.charCodeAt(client.name.length - 1) % 2 === 0;
  }

  protected next(): Task {
    const { prng } = this;
    const { inodes } = this.#attributes;
    const own = inodes.get(this.#name);
    if (own === undefined) return () => this.#make();
    // What cannot be answered from the cache of a client that is cut off must not keep it from looking at what can.
    if (prng.int(4) === 0 && !this.#changing) return () => this.beside(() => this.#change(own));
    const names = [...inodes.keys()];
    const name = names[prng.int(names.length)] as string;
    const byNumber = prng.int(3) > 0;
    return () => this.beside(() => this.#look(name, byNumber));
  }

  async #make(): Promise<void> {
    const ino = await (this.#isLink ? this.#makeLink() : this.#makeFile());
    await this.#set(ino, this.#attributes.cells.issue(this.#name));
    this.#attributes.inodes.set(this.#name, ino);
  }

  async #makeLink(): Promise<number> {
    const { fs } = this.client;
    const name = Buffer.from(this.#name);
    let attr: FileAttr;
    try {
      ({ attr } = await fs.symlink(simCaller(), ROOT_INO, name, TARGET));
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.errorName !== 'EEXIST') throw error;
      // From an attempt of which it is not known how it ended.
      ({ attr } = await fs.lookup(simCaller(), ROOT_INO, name));
    }
    await this.#sync(attr.ino);
    return attr.ino;
  }

  async #makeFile(): Promise<number> {
    const { fs } = this.client;
    const { entry, handle } = await fs.create(
      simCaller(),
      ROOT_INO,
      Buffer.from(this.#name),
      MODE,
      O_RDWR,
      0,
    );
    const { ino } = entry.attr;
    try {
      await fs.fsync(simCaller(), ino, handle, false);
    } finally {
      await fs.release(ino, handle, 0);
    }
    return ino;
  }

  /** A link cannot be opened: the sync of its directory takes what is known of it along. */
  async #sync(ino: number): Promise<void> {
    const { fs } = this.client;
    if (this.#isLink) {
      const { handle } = await fs.opendir(simCaller(), ROOT_INO, 0);
      try {
        await fs.fsyncdir(simCaller(), ROOT_INO, handle, false);
      } finally {
        await fs.releasedir(ROOT_INO, handle);
      }
      return;
    }
    const { handle } = await fs.open(simCaller(), ino, 0);
    try {
      await fs.fsync(simCaller(), ino, handle, false);
    } finally {
      await fs.release(ino, handle, 0);
    }
  }

  async #set(ino: number, number: number): Promise<void> {
    await this.client.fs.setattr(simCaller(), ino, { mtime: { sec: number, nsec: 0 } });
  }

  async #change(ino: number): Promise<void> {
    const { client, prng } = this;
    const { cells, isOver } = this.#attributes;
    const { shutOuts, session } = client;
    const number = cells.issue(this.#name);
    const certain = (): boolean => client.shutOuts === shutOuts && !isOver(session.id);
    this.#changing = true;
    try {
      this.note(() => `${this.#name} = ${number}`);
      await this.#set(ino, number);
      if (certain()) cells.acknowledged(this.#name, number, cells.cuts);
      if (prng.int(4) > 0) return;
      await this.#sync(ino);
      if (certain()) cells.durable(this.#name, number);
    } finally {
      this.#changing = false;
    }
  }

  /** @param byNumber asks for the inode, not for the name */
  async #look(name: string, byNumber: boolean): Promise<void> {
    const { fs, world } = this.client;
    const { inodes, cells } = this.#attributes;
    const floor = cells.floor(name);
    const { attr } = byNumber
      ? await fs.getattr(simCaller(), inodes.get(name) as number)
      : await fs.lookup(simCaller(), ROOT_INO, Buffer.from(name));
    // Whose maker died before he set it has the time at which it was made.
    const { sec } = attr.mtime;
    const wrong = cells.check(name, sec < WALL_CLOCK_MIN_SEC ? sec : 0, floor);
    if (wrong) world.fail(new Error(`${this.client.name} looks at ${name}: ${wrong}`));
  }

  /** Looks at all files. */
  async lookAtAll(): Promise<void> {
    for (const name of [...this.#attributes.inodes.keys()]) await this.#look(name, false);
  }
}
