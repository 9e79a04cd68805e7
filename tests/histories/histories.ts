import { createPrng, type Prng } from '../../common/prng.js';
import { eventually } from '../lab/eventually.js';
import { Agent } from '../posix/agent.js';
import { ROOT_USER } from '../posix/bench.js';
import { Arena, CELLS_NAME, type Recorded, ROOTS } from './arena.js';
import type { CellsInput } from './cells-model.js';
import { judge, type Verdict } from './judge.js';
import { Program } from './program.js';
import { MADE_MODE, type TreeInput } from './tree-model.js';

export interface HistoriesOptions {
  /** The directory of each mount, by name. */
  mounts: ReadonlyMap<string, string>;
  seed: number;
  /** Processes on each mount. */
  programs?: number;
}

/** Arenas in use at a time; an operation of a program goes to any of them. */
const ARENAS = 2;
/** Operations in one arena, about; then another takes its place. Longer histories take longer to decide. */
const OPERATIONS_OF_AN_ARENA = 240;
const PROGRESS_TIMEOUT_MS = 180_000;
const FIRST_TAG = 1000;

/** Programs on several mounts of one cluster that use the same names and files at the same time, and all that they saw. */
export class Histories {
  readonly #mounts: ReadonlyMap<string, string>;
  readonly #programsOfAMount: number;
  readonly #prng: Prng;
  /** Names directories: another run in the same cluster has another one. */
  readonly #seed: number;
  readonly #programs = new Map<string, Program[]>();
  /** How often each mount was mounted anew. */
  readonly #lives = new Map<string, number>();
  readonly #killed = new Set<string>();
  readonly #all: Arena[] = [];
  #arenas: Arena[] = [];
  #renewal: Promise<void> | undefined;
  #next = FIRST_TAG;
  /** Calls that failed although their mount lived. */
  readonly offences: string[] = [];

  constructor({ mounts, seed, programs = 2 }: HistoriesOptions) {
    this.#mounts = mounts;
    this.#programsOfAMount = programs;
    this.#prng = createPrng(seed);
    this.#seed = seed;
  }

  async start(): Promise<void> {
    await this.#renew(ARENAS);
    for (const mount of this.#mounts.keys()) this.#startPrograms(mount);
  }

  /** Waits until the programs of every mount that lives have made so many further calls. */
  async progress(more = 20): Promise<void> {
    const counts = (): Map<string, number> => {
      const counted = new Map<string, number>();
      for (const { tree, cells } of this.#all)
        for (const { mount, output } of [...tree, ...cells])
          if (output !== undefined) counted.set(mount, (counted.get(mount) ?? 0) + 1);
      return counted;
    };
    const before = counts();
    const done = (): boolean => {
      const now = counts();
      return [...this.#mounts.keys()]
        .map((mount) => this.#life(mount))
        .filter((life) => !this.#killed.has(life))
        .every((life) => (now.get(life) ?? 0) >= (before.get(life) ?? 0) + more);
    };
    await eventually('the programs go on', done, PROGRESS_TIMEOUT_MS);
  }

  /** Calls that were not answered, the earliest first. */
  pending(): Recorded<TreeInput | CellsInput>[] {
    const all = this.#all.flatMap(({ tree, cells }) => [...tree, ...cells]);
    return all.filter(({ output }) => output === undefined).sort((a, b) => a.call - b.call);
  }

  /** kill -9 of one program; another one takes its place. */
  async killProgram(mount: string): Promise<void> {
    const programs = this.#programs.get(mount) as Program[];
    const victim = programs.shift() as Program;
    await victim.kill();
    programs.push(this.#startProgram(mount));
  }

  /**
   * Kills a mount, with all that it had not synced.
   *
   * @param kill ends its process with SIGKILL
   * @returns changes whose outcome is not known now
   */
  async killMount(mount: string, kill: () => Promise<void>): Promise<number> {
    const life = this.#life(mount);
    this.#killed.add(life);
    await kill();
    await Promise.all((this.#programs.get(mount) ?? []).map((program) => program.kill()));
    this.#programs.delete(mount);
    const unknown = this.#all.reduce((sum, arena) => sum + arena.forget(life), 0);
    // What nobody knows makes a history hard to decide: it goes on no further.
    await this.#renewal;
    await this.#renew(ARENAS);
    return unknown;
  }

  /** A mount that was killed stands again. */
  revive(mount: string): void {
    this.#lives.set(mount, (this.#lives.get(mount) ?? 0) + 1);
    this.#startPrograms(mount);
  }

  /** Ends the programs; lets every mount look at all that is there; and judges. */
  async finish(): Promise<Verdict> {
    await Promise.all([...this.#programs.values()].flat().map((program) => program.stop()));
    await this.#renewal;
    this.#programs.clear();
    const readers = [...this.#mounts.keys()].map((mount) => this.#program(mount, `${mount} at the end`));
    await Promise.all(readers.map((reader) => this.#readAll(reader)));
    return judge(this.#all);
  }

  /** Ends all processes, whatever state they are in. */
  async end(): Promise<void> {
    const programs = [...this.#programs.values()].flat();
    this.#programs.clear();
    await Promise.all(programs.map((program) => program.kill().catch(() => undefined)));
  }

  async #readAll(reader: Program): Promise<void> {
    try {
      for (const arena of this.#all) await reader.readAll(arena);
    } finally {
      await reader.kill();
    }
  }

  #life(mount: string): string {
    return `${mount}#${this.#lives.get(mount) ?? 0}`;
  }

  #startPrograms(mount: string): void {
    const programs = Array.from({ length: this.#programsOfAMount }, () => this.#startProgram(mount));
    this.#programs.set(mount, programs);
  }

  #startProgram(mount: string): Program {
    const program = this.#program(mount, `${this.#life(mount)}/${this.#next++}`);
    program.start();
    return program;
  }

  #program(mount: string, name: string): Program {
    const life = this.#life(mount);
    return new Program(name, life, this.#dir(mount), createPrng(this.#prng.int(2 ** 32)), {
      arenas: () => this.#present(),
      tag: () => this.#next++,
      value: () => (this.#next++).toString().padStart(8, '.'),
      offend: (line) => {
        if (!this.#killed.has(life)) this.offences.push(line);
      },
    });
  }

  #dir(mount: string): string {
    return this.#mounts.get(mount) as string;
  }

  /** The arenas to work in; a full one is replaced as soon as another is there. */
  #present(): readonly Arena[] {
    const full = this.#arenas.filter(({ operations }) => operations >= OPERATIONS_OF_AN_ARENA).length;
    if (full > 0 && !this.#renewal) {
      this.#renewal = this.#renew(full).catch((error: Error) => void this.offences.push(error.message));
      void this.#renewal.finally(() => {
        this.#renewal = undefined;
      });
    }
    return this.#arenas;
  }

  /** Makes new arenas, on disk, for those that were used most. */
  async #renew(count: number): Promise<void> {
    const made: Arena[] = [];
    for (let n = 0; n < count; n++) made.push(await this.#make(`arena-${this.#seed}-${this.#next++}`));
    const kept = [...this.#arenas].sort((a, b) => a.operations - b.operations);
    this.#arenas = [...kept.slice(0, ARENAS - count), ...made];
    this.#all.push(...made);
  }

  async #make(name: string): Promise<Arena> {
    const alive = [...this.#mounts.keys()].filter((mount) => !this.#killed.has(this.#life(mount)));
    const agent = new Agent('/', ROOT_USER, PROGRESS_TIMEOUT_MS);
    try {
      const dir = `${this.#dir(alive[this.#prng.int(alive.length)] as string)}/${name}`;
      for (const one of [dir, ...ROOTS.map((root) => `${dir}/${root.name}`)])
        await agent.ok('mkdir', one, MADE_MODE);
      const fd = await agent.open(`${dir}/${CELLS_NAME}`, 'O_RDWR|O_CREAT');
      await agent.ok('fsync', fd);
      await agent.ok('fsync', await agent.open(dir, 'O_RDONLY|O_DIRECTORY'));
    } finally {
      agent.end();
    }
    return new Arena(name);
  }
}
