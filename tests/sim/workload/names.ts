import { attrOf, resultOf } from '../../../client/meta/api.js';
import { HoldfastError } from '../../../proto/errors.js';
import { Link, MakeNode, Rename, SetAttr, SetXattr, Unlink } from '../../../proto/gen/meta.js';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_INO, S_IFDIR, S_IFREG } from '../../../proto/types.js';
import type { History, RegisterInput } from '../checkers/linearizability.js';
import type { NameInput, NameOutput } from '../checkers/namespace-model.js';
import type { ClientMachine } from '../client.js';
import { type Task, Worker } from './worker.js';

export const DIRECTORIES = 2;
export const REGISTERS = 3;
const NAMES = ['a', 'b', 'c', 'd'];
const XATTR = Buffer.from('user.v');
const LIST_MAX = 100;
/** Outcomes of which nothing is known. */
const UNKNOWN = new Set(['EIO', 'ETIMEDOUT', 'EINTR', 'ESTALE', 'SESSION_EXPIRED', 'CONNECTION_LOST']);

export type NameHistory = History<NameInput, NameOutput>;
export type RegisterHistory = History<RegisterInput, string>;

/** What all workers share: the inodes of the fixed directories and files, and everything that happened. */
export class Names {
  readonly directories: number[] = [];
  /** Files of which mode and an extended attribute are registers. */
  readonly files: number[] = [];
  readonly history: NameHistory;
  readonly registers: RegisterHistory[];
  /** Inodes that were seen, by tag. */
  readonly inodes = new Map<number, number>();
  nextTag = 1;
  nextValue = 1;

  constructor(history: NameHistory, registers: RegisterHistory[]) {
    this.history = history;
    this.registers = registers;
  }

  /** Makes the fixed directories and files. */
  async prepare({ session }: ClientMachine): Promise<void> {
    const make = async (name: string, mode: number): Promise<number> => {
      const value = MakeNode.create({ parent: ROOT_INO, name: Buffer.from(name), mode });
      return attrOf((await session.mutate({ $case: 'makeNode', value })).result).ino;
    };
    for (let i = 0; i < DIRECTORIES; i++) this.directories.push(await make(`dir${i}`, S_IFDIR | 0o777));
    for (let i = 0; i < REGISTERS; i++) this.files.push(await make(`register${i}`, S_IFREG));
  }
}

/** One program that changes and reads names and attributes, one call at a time, straight through the session. */
export class NamesWorker extends Worker {
  readonly #names: Names;
  readonly #readOnly: boolean;

  /** @param readOnly it only asks, and goes on asking while an answer is awaited */
  constructor(client: ClientMachine, names: Names, readOnly: boolean) {
    super(client, 150);
    this.#names = names;
    this.#readOnly = readOnly;
  }

  protected next(): Task {
    const { prng } = this;
    const register = prng.int(this.#names.registers.length);
    if (prng.int(4) === 0) return this.#task(() => this.#register(register));
    const dir = prng.int(DIRECTORIES);
    const name = NAMES[prng.int(NAMES.length)] as string;
    const read: NameInput = prng.int(2) === 0 ? { kind: 'list', dir } : { kind: 'lookup', dir, name };
    const input = this.#readOnly ? read : this.#choose(dir, name);
    return this.#task(() => this.#name(input));
  }

  #task(task: Task): Task {
    return this.#readOnly ? () => this.beside(task) : task;
  }

  #choose(dir: number, name: string): NameInput {
    const { prng } = this;
    const tag = (): number => this.#names.nextTag++;
    switch (prng.int(12)) {
      case 0:
      case 1:
      case 2:
        return { kind: 'create', dir, name, tag: tag(), exclusive: true };
      case 3:
        return { kind: 'create', dir, name, tag: tag(), exclusive: false };
      case 4:
      case 5:
        return { kind: 'unlink', dir, name };
      case 6:
      case 7:
        return { kind: 'lookup', dir, name };
      case 8:
        return { kind: 'list', dir };
      case 9: {
        const known = [...this.#names.inodes.keys()];
        if (known.length === 0) return { kind: 'list', dir };
        return { kind: 'link', tag: known[prng.int(known.length)] as number, dir, name };
      }
      default: {
        const toDir = prng.int(DIRECTORIES);
        const toName = NAMES[prng.int(NAMES.length)] as string;
        if (toDir === dir && toName === name) return { kind: 'list', dir };
        const flags = [0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE][prng.int(4)] as number;
        return { kind: 'rename', dir, name, toDir, toName, flags };
      }
    }
  }

  async #name(input: NameInput): Promise<void> {
    const answered = this.#names.history.call(this.client.name, input);
    const output = await this.#outcome(() => this.#ask(input));
    if (output) answered(output);
  }

  async #outcome(ask: () => Promise<NameOutput>): Promise<NameOutput | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      return UNKNOWN.has(error.errorName) ? undefined : { error: error.errorName };
    }
  }

  async #ask(input: NameInput): Promise<NameOutput> {
    const { session } = this.client;
    const { directories, inodes } = this.#names;
    const parent = directories[input.kind === 'rename' ? input.dir : input.dir] as number;
    const name = Buffer.from('name' in input ? input.name : '');
    switch (input.kind) {
      case 'create': {
        const { tag, exclusive } = input;
        const node = { parent, name, mode: S_IFREG | 0o644, uid: tag, existingOk: !exclusive };
        const reply = await session.mutate({ $case: 'makeNode', value: MakeNode.create(node) });
        const attr = attrOf(reply.result);
        inodes.set(attr.uid, attr.ino);
        return { tag: attr.uid };
      }
      case 'unlink':
        await session.mutate({ $case: 'unlink', value: Unlink.create({ parent, name }) });
        return {};
      case 'link': {
        const ino = inodes.get(input.tag) as number;
        await session.mutate({ $case: 'link', value: Link.create({ ino, parent, name }) });
        return {};
      }
      case 'rename': {
        const newParent = directories[input.toDir] as number;
        const newName = Buffer.from(input.toName);
        const value = Rename.create({ parent, name, newParent, newName, flags: input.flags });
        await session.mutate({ $case: 'rename', value });
        return {};
      }
      case 'lookup': {
        const { uid, ino } = resultOf(
          await session.read({ $case: 'lookup', value: { parent, name } }),
          'attr',
        );
        inodes.set(uid, ino);
        return { tag: uid };
      }
      case 'list': {
        const value = { ino: parent, cookie: 0, maxEntries: LIST_MAX, plus: true };
        const { entries } = resultOf(await session.read({ $case: 'readDir', value }), 'dir');
        const names = entries.map((entry) => `${Buffer.from(entry.name)}=${entry.attr?.uid}`);
        return { names: names.sort().join(' ') };
      }
    }
  }

  /** Even registers are a file's mode, odd ones its extended attribute. */
  async #register(index: number): Promise<void> {
    const { prng } = this;
    const history = this.#names.registers[index] as RegisterHistory;
    const ino = this.#names.files[index >> 1] as number;
    const isWrite = !this.#readOnly && prng.int(3) > 0;
    const value = String((this.#names.nextValue++ % 0o7777) + 1);
    const answered = history.call(this.client.name, isWrite ? { kind: 'write', value } : { kind: 'read' });
    try {
      const found = await (index % 2 === 0
        ? this.#mode(ino, isWrite ? value : undefined)
        : this.#xattr(ino, isWrite ? value : undefined));
      answered(found);
    } catch (error) {
      if (!(error instanceof HoldfastError) || !UNKNOWN.has(error.errorName)) throw error;
    }
  }

  async #mode(ino: number, value: string | undefined): Promise<string> {
    const { session } = this.client;
    if (value !== undefined) {
      const change = SetAttr.create({ ino, mode: Number(value) });
      await session.mutate({ $case: 'setAttr', value: change });
      return value;
    }
    const { mode } = resultOf(await session.read({ $case: 'getAttr', value: { ino } }), 'attr');
    return (mode & 0o7777) === 0 ? '' : String(mode & 0o7777);
  }

  async #xattr(ino: number, value: string | undefined): Promise<string> {
    const { session } = this.client;
    if (value !== undefined) {
      const change = SetXattr.create({ ino, name: XATTR, value: Buffer.from(value) });
      await session.mutate({ $case: 'setXattr', value: change });
      return value;
    }
    try {
      const result = await session.read({ $case: 'getXattr', value: { ino, name: XATTR } });
      return Buffer.from(resultOf(result, 'value')).toString();
    } catch (error) {
      if (error instanceof HoldfastError && error.errorName === 'ENODATA') return '';
      throw error;
    }
  }
}
