import type { Prng } from '../../common/prng.js';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../proto/types.js';
import { monotonicMs } from '../lab/monotonic.js';
import { Agent, type Answer, type Argument } from '../posix/agent.js';
import { ROOT_USER } from '../posix/bench.js';
import { type Arena, CELLS_NAME, type Recorded, ROOTS } from './arena.js';
import { CELL_BYTES, type CellsInput, DONE, HOLE } from './cells-model.js';
import { MADE_MODE, OK, type TreeInput } from './tree-model.js';

const NAMES = ['a', 'b', 'c'];
const XATTR = 'user.v';
/** One page, the next one, the next chunk. */
const CELLS = [0, 8, 16, 4096, 5000, 4 * 2 ** 20 + 64];
const SIZES = [0, 8, 24, 4096, 5008, 4 * 2 ** 20 + 64];
/** Descriptors of files and directories that a program holds in an arena, beside those of its roots. */
const HELD_MAX = 5;
/** Longer than any fault and what others wait for after it. */
const CALL_TIMEOUT_MS = 180_000;
const NUL = '\0'.repeat(CELL_BYTES);

/** Of these nobody knows whether the call was carried out; while its mount lives they must not happen. */
const OPEN_ENDED = new Set(['EIO', 'ENOTCONN', 'ECONNABORTED', 'ETIMEDOUT', 'EINTR', 'ENODEV']);

export interface Hooks {
  /** Where to work now; a program may still finish a call elsewhere. */
  arenas(): readonly Arena[];
  /** A number that no other inode has. */
  tag(): number;
  /** A value that nobody else writes. */
  value(): string;
  /** A call failed in a way that no program should see, unless its mount was killed. */
  offend(line: string): void;
}

interface Stamped {
  began: number;
  ended: number;
  answer: Answer;
}

interface Opened {
  fd: number;
  uid: number;
  isDirectory: boolean;
}

/** What a program has open in an arena. */
interface Place {
  readonly arena: Arena;
  /** By tag. */
  readonly held: Map<number, Opened>;
  cells: { fd: number; appending: number } | undefined;
  lastSize: number;
}

/** A process on one mount that makes one random call after the other, and notes what it was answered, and when. */
export class Program {
  readonly name: string;
  readonly mount: string;
  readonly #dir: string;
  readonly #prng: Prng;
  readonly #hooks: Hooks;
  readonly #agent: Agent;
  readonly #places = new Map<Arena, Place>();
  #stopped = false;
  /** Its process or its mount is gone. */
  #lost = false;
  #run: Promise<void> | undefined;

  /** @param dir where the arenas are */
  constructor(name: string, mount: string, dir: string, prng: Prng, hooks: Hooks) {
    this.name = name;
    this.mount = mount;
    this.#dir = dir;
    this.#prng = prng;
    this.#hooks = hooks;
    this.#agent = new Agent('/', ROOT_USER, CALL_TIMEOUT_MS);
  }

  start(): void {
    this.#run = this.#loop();
    this.#run.catch(() => undefined);
  }

  /** Ends it after the call that is on. @throws Error what went wrong with it */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#run;
    this.#agent.end();
  }

  /** kill -9 of the process: of the call that is on nobody knows what became. */
  async kill(): Promise<void> {
    this.#lost = true;
    this.#agent.end();
    await this.#run;
  }

  /** Looks at everything that is in an arena, one call after the other. */
  async readAll(arena: Arena): Promise<void> {
    const place = await this.#enter(arena);
    for (const { tag: dir } of ROOTS) {
      await this.#tree(place, { kind: 'list', dir });
      for (const name of NAMES) await this.#tree(place, { kind: 'lookup', dir, name });
    }
    await this.#cell(place, { kind: 'size' });
    for (const at of CELLS) await this.#cell(place, { kind: 'pread', at });
    await this.#leave(place);
  }

  /** Brings to disk all that was done in the arena through this mount. */
  async syncAll(arena: Arena): Promise<void> {
    await this.#sync(await this.#enter(arena));
  }

  async #loop(): Promise<void> {
    while (!this.#stopped && !this.#lost) {
      const arenas = this.#hooks.arenas();
      for (const place of this.#places.values()) if (!arenas.includes(place.arena)) await this.#leave(place);
      const place = await this.#enter(this.#pick(arenas));
      if (this.#lost) return;
      if (this.#prng.int(10) === 0) await this.#sync(place);
      else if (this.#prng.int(4) === 0) await this.#cell(place, this.#chooseCell(place));
      else await this.#tree(place, this.#chooseTree(place));
    }
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#prng.int(list.length)] as T;
  }

  #chooseCell({ lastSize }: Place): CellsInput {
    const at = this.#prng.int(3) === 0 ? Math.max(0, lastSize - CELL_BYTES) : this.#pick(CELLS);
    const choice = this.#prng.int(12);
    if (choice < 4) return { kind: 'pread', at };
    if (choice < 7) return { kind: 'pwrite', at, value: this.#hooks.value() };
    if (choice < 9) return { kind: 'append', value: this.#hooks.value() };
    return choice === 9 ? { kind: 'truncate', size: this.#pick(SIZES) } : { kind: 'size' };
  }

  #chooseTree({ held }: Place): TreeInput {
    const directories = [...held].filter(([, { isDirectory }]) => isDirectory).map(([tag]) => tag);
    const tags = [...held.keys()];
    const files = tags.filter((tag) => !directories.includes(tag));
    const [dir, toDir, name, toName] = [
      ...[this.#pick(directories), this.#pick(directories)],
      ...[this.#pick(NAMES), this.#pick(NAMES)],
    ] as [number, number, string, string];
    const tag = this.#pick(tags);
    const choice = this.#prng.int(100);
    if (choice < 14) return { kind: 'create', dir, name, tag: this.#hooks.tag(), exclusive: true };
    if (choice < 20) return { kind: 'create', dir, name, tag: this.#hooks.tag(), exclusive: false };
    if (choice < 28) return { kind: 'mkdir', dir, name, tag: this.#hooks.tag() };
    if (choice < 38) return { kind: 'unlink', dir, name };
    if (choice < 43) return { kind: 'rmdir', dir, name };
    if (choice < 57) return { kind: 'lookup', dir, name };
    if (choice < 65) return { kind: 'list', dir };
    if (choice < 71 && files.length > 0) return { kind: 'link', tag: this.#pick(files), dir, name };
    if (choice < 82) {
      const flags = this.#pick([0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]);
      return { kind: 'rename', dir, name, toDir, toName, flags };
    }
    if (choice < 86) return { kind: 'chmod', tag, mode: (this.#prng.int(8) << 6) | 0o077 };
    if (choice < 90) return { kind: 'setxattr', tag, value: this.#hooks.value() };
    return { kind: choice < 96 ? 'stat' : 'getxattr', tag };
  }

  async #tree(place: Place, input: TreeInput): Promise<void> {
    const fd = (tag: number): number => (place.held.get(tag) as Opened).fd;
    const record = (call: readonly Argument[], show: (value: unknown) => string): Promise<unknown> =>
      this.#record(place.arena.tree, input, call, show);
    const ok = (): string => OK;
    switch (input.kind) {
      case 'create': {
        const { dir, name, exclusive, tag } = input;
        const opened = await record(['createAt', fd(dir), name, exclusive, MADE_MODE, tag], described);
        return this.#hold(place, opened);
      }
      case 'mkdir':
        return void (await record(['mkdirAt', fd(input.dir), input.name, MADE_MODE, input.tag], ok));
      case 'unlink':
      case 'rmdir':
        return void (await record([`${input.kind}At`, fd(input.dir), input.name], ok));
      case 'lookup': {
        if (this.#prng.int(2) === 0)
          return void (await record(['lookupAt', fd(input.dir), input.name], described));
        return this.#hold(place, await record(['openAt', fd(input.dir), input.name], described));
      }
      case 'list':
        return void (await record(['listAt', fd(input.dir)], (names) => (names as string[]).join(' ')));
      case 'link':
        return void (await record(['linkatFdAt', fd(input.tag), fd(input.dir), input.name], ok));
      case 'rename': {
        const { dir, name, toDir, toName, flags } = input;
        return void (await record(['renameat2At', fd(dir), name, fd(toDir), toName, flags], ok));
      }
      case 'chmod':
        return void (await record(['fchmod', fd(input.tag), input.mode], ok));
      case 'setxattr':
        return void (await record(['fsetxattr', fd(input.tag), XATTR, input.value], ok));
      case 'stat':
        return void (await record(['fstat', fd(input.tag)], (value) => {
          const { mode, nlink } = value as { mode: number; nlink: number };
          return `${mode.toString(8)} ${nlink}`;
        }));
      case 'getxattr':
        return void (await record(['fgetxattr', fd(input.tag), XATTR], String));
    }
  }

  async #cell(place: Place, input: CellsInput): Promise<void> {
    const cells = await this.#openCells(place);
    if (!cells) return;
    const record = (call: readonly Argument[], show: (value: unknown) => string): Promise<unknown> =>
      this.#record(place.arena.cells, input, call, show);
    const done = (): string => DONE;
    switch (input.kind) {
      case 'pwrite':
        await record(['pwrite', cells.fd, input.value, input.at], done);
        break;
      case 'append':
        await record(['write', cells.appending, input.value], done);
        break;
      case 'truncate':
        await record(['ftruncate', cells.fd, input.size], done);
        break;
      case 'pread':
        await record(['pread', cells.fd, CELL_BYTES, input.at], (value) =>
          value === NUL ? HOLE : String(value),
        );
        break;
      case 'size':
        await record(['fstat', cells.fd], (value) => {
          place.lastSize = (value as { size: number }).size;
          return String(place.lastSize);
        });
    }
    // A file that only one mount has open is written back by its kernel; one that several have open is not.
    if (this.#prng.int(6) === 0) await this.#closeCells(place);
  }

  async #openCells(place: Place): Promise<Place['cells']> {
    if (place.cells) return place.cells;
    const path = `${this.#dir}/${place.arena.name}/${CELLS_NAME}`;
    const fd = await this.#beside('open', path, 'O_RDWR');
    const appending = await this.#beside('open', path, 'O_WRONLY|O_APPEND');
    if (typeof fd !== 'number' || typeof appending !== 'number') return undefined;
    place.cells = { fd, appending };
    return place.cells;
  }

  async #closeCells(place: Place): Promise<void> {
    if (!place.cells) return;
    const { fd, appending } = place.cells;
    place.cells = undefined;
    await this.#beside('close', fd);
    await this.#beside('close', appending);
  }

  async #sync(place: Place): Promise<void> {
    const cells = await this.#openCells(place);
    const roots = ROOTS.map(({ tag }) => place.held.get(tag)?.fd);
    if (!cells) return;
    const call = monotonicMs() * 1000;
    for (const fd of [cells.fd, ...roots])
      if (fd === undefined || (await this.#beside('fsync', fd)) === undefined) return;
    place.arena.sync(this.mount, call);
  }

  async #enter(arena: Arena): Promise<Place> {
    const known = this.#places.get(arena);
    if (known) return known;
    const place: Place = { arena, held: new Map(), cells: undefined, lastSize: 0 };
    for (const { tag, name } of ROOTS) {
      const fd = await this.#beside('open', `${this.#dir}/${arena.name}/${name}`, 'O_RDONLY|O_DIRECTORY');
      if (typeof fd === 'number') place.held.set(tag, { fd, uid: tag, isDirectory: true });
    }
    this.#places.set(arena, place);
    return place;
  }

  async #leave(place: Place): Promise<void> {
    await this.#closeCells(place);
    for (const { fd } of place.held.values()) await this.#beside('close', fd);
    this.#places.delete(place.arena);
  }

  /** Keeps what was opened under its tag; what it has held longest goes for it. */
  async #hold({ held }: Place, value: unknown): Promise<void> {
    if (value === undefined) return;
    const opened = value as Opened;
    const before = held.get(opened.uid);
    if (before) await this.#beside('close', before.fd);
    held.delete(opened.uid);
    held.set(opened.uid, opened);
    if (held.size <= ROOTS.length + HELD_MAX) return;
    const [oldest, { fd }] = [...held].find(([tag]) => !ROOTS.some((root) => root.tag === tag)) as [
      number,
      Opened,
    ];
    held.delete(oldest);
    await this.#beside('close', fd);
  }

  /** A call that the histories know nothing of; it must succeed. @returns null for a call without a value; undefined: it failed */
  async #beside(...call: [string, ...Argument[]]): Promise<unknown> {
    const { answer } = await this.#ask(call);
    if (!answer) return undefined;
    if (answer.errno === undefined) return answer.value;
    this.#failed(call, answer.errno);
    return undefined;
  }

  /** @returns the value of a call that succeeded */
  async #record<Input>(
    history: Recorded<Input>[],
    input: Input,
    call: readonly Argument[],
    show: (value: unknown) => string,
  ): Promise<unknown> {
    const operation: Recorded<Input> = {
      ...{ client: this.name, mount: this.mount, input, output: undefined },
      ...{ call: monotonicMs() * 1000, end: Number.POSITIVE_INFINITY },
    };
    history.push(operation);
    const { answer, began, ended } = await this.#ask(call);
    if (!answer) return undefined;
    operation.call = began;
    if (answer.errno !== undefined && OPEN_ENDED.has(answer.errno)) {
      this.#failed(call, answer.errno);
      return undefined;
    }
    operation.end = ended;
    const absent = answer.errno === 'ENODATA' ? '' : answer.errno;
    operation.output = absent ?? show(answer.value);
    return answer.errno === undefined ? answer.value : undefined;
  }

  #failed(call: readonly Argument[], errno: string): void {
    if (errno === 'ENOTCONN' || errno === 'ECONNABORTED') this.#lost = true;
    this.#hooks.offend(`${this.name}: ${call.join(' ')}: ${errno}`);
  }

  async #ask(call: readonly Argument[]): Promise<Partial<Stamped> & { began: number; ended: number }> {
    if (this.#lost) return { began: 0, ended: 0 };
    try {
      return (await this.#agent.ok<Stamped>('timed', call)) as Stamped;
    } catch (error) {
      if (!this.#lost) this.#hooks.offend(`${this.name}: ${(error as Error).message}`);
      this.#lost = true;
      return { began: 0, ended: 0 };
    }
  }
}

function described(value: unknown): string {
  const { uid, isDirectory } = value as Opened;
  return `${uid} ${isDirectory ? 'dir' : 'file'}`;
}
