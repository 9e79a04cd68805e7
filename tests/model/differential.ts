import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Clock, systemClock } from '../../common/clock.js';
import { Agent, type Answer } from '../posix/agent.js';
import { ALICE, BOB, ROOT_USER } from '../posix/bench.js';
import { type FileCall, type FileOperations, fileOperations } from './file-operations.js';

const USERS = [ROOT_USER, ALICE, BOB];
const TURNS_MAX = 60;
const DEFAULT_RUNS = 50;
/** What failed is made shorter for so long; then the shortest so far is shown. */
const SHRINK_MAX_MS = 60_000;

/** What a FUSE kernel answers by itself, which knows of no flags, before it asks: EPERM of a local file system. */
const KERNELS_OWN = ['EACCES', 'EISDIR', 'ENOTDIR'];

/** st_size of any directory of a mount. */
const DIRECTORY_BYTES = 4096;

/** What may differ, and why. An operation is left out of the comparison where it meets one of these. */
const ALLOWED: { reason: string; meets(answers: [Answer, Answer], call: FileCall): boolean }[] = [
  {
    reason: 'errnos that POSIX leaves to the system: EEXIST and ENOTEMPTY of one cause',
    meets: ([a, b]) => [a.errno, b.errno].sort().join() === 'EEXIST,ENOTEMPTY',
  },
  {
    reason:
      'flags of inodes: the kernel makes its own checks first, and asks neither for access(2) nor for a write of nothing',
    meets: ([local, mounted], [name, , attribute]) =>
      local.errno === 'EPERM' &&
      (KERNELS_OWN.includes(mounted.errno ?? '') ||
        (name === 'setxattr' && mounted.errno === 'EINVAL') || // no list of access
        // A default list of what is no directory; of a directory the trees would differ in the end.
        (name === 'removexattr' && attribute === 'system.posix_acl_default') ||
        (name === 'access' && mounted.errno === undefined) ||
        // Of no bytes; before it asks, the kernel refuses to copy a range onto itself.
        (name.endsWith('write') && mounted.value === 0) ||
        (name === 'copy_file_range' && (mounted.value === 0 || mounted.errno === 'EINVAL'))),
  },
  {
    reason: 'the end of a directory as a position: POSIX gives it no meaning, ext4 has it behind all hashes',
    meets: ([local], [name, , offset, whence]) =>
      name === 'lseek' &&
      (Number(local.value) > Number.MAX_SAFE_INTEGER ||
        // Behind all hashes there is nothing. In a file it would be a position like any other.
        (local.errno === 'EINVAL' && whence === 'SEEK_END' && Number(offset) >= 0)),
  },
  {
    reason: 'whether zeros are a hole: ext4 takes those for data that are in its cache',
    meets: ([local, mounted], [name, , offset, whence]) =>
      name === 'lseek' &&
      whence === 'SEEK_HOLE' &&
      Number(mounted.value) >= Number(offset) &&
      Number(mounted.value) < Number(local.value),
  },
  {
    reason: 'a directory is not read, ext4 says of a position behind all hashes first that it is too far',
    meets: ([local, mounted], [name]) =>
      name.endsWith('read') && local.errno === 'EINVAL' && mounted.errno === 'EISDIR',
  },
  {
    reason:
      'the end of a removed directory: ext4 empties it, and a FUSE kernel seeks by the size that it was told before',
    meets: ([local, mounted], [name, , offset, whence]) =>
      name === 'lseek' &&
      ((whence === 'SEEK_HOLE' && local.errno === 'ENXIO' && Number(offset) < DIRECTORY_BYTES) ||
        (whence === 'SEEK_END' && local.value === Number(offset))) &&
      mounted.value === DIRECTORY_BYTES + (whence === 'SEEK_END' ? Number(offset) : 0),
  },
];

/** The same operations on a local tree and on one or more mounts of one directory; every answer and the trees must be equal. */
export class Differential {
  readonly #local: Agent[][];
  readonly #mounted: Agent[][];
  readonly #localDir: string;
  readonly #mounts: readonly string[];
  #next = 0;
  /** Made so far, each on both sides. */
  calls = 0;

  /** @param mounts directories that show one tree. @param flagsToo the local file system keeps flags of inodes */
  constructor(
    local: string,
    mounts: readonly string[],
    private readonly flagsToo: boolean,
    private readonly clock: Clock = systemClock,
  ) {
    this.#localDir = local;
    this.#mounts = mounts;
    this.#local = mounts.map(() => USERS.map((user) => new Agent(local, user)));
    this.#mounted = mounts.map((dir) => USERS.map((user) => new Agent(dir, user)));
  }

  /** Random sequences; what fails is made as short as it can be. HOLDFAST_DIFFERENTIAL_RUNS and _SEED say how many, and which. */
  async check(seed: number, defaultRuns = DEFAULT_RUNS): Promise<void> {
    const runs = Number(process.env.HOLDFAST_DIFFERENTIAL_RUNS ?? defaultRuns);
    let shrinkUntil = Infinity;
    const run = async (turns: readonly FileOperations[]): Promise<void> => {
      if (this.clock.now() > shrinkUntil) return;
      try {
        await this.run(turns);
      } catch (error) {
        if (shrinkUntil === Infinity) shrinkUntil = this.clock.now() + SHRINK_MAX_MS;
        throw error;
      }
    };
    await fc.assert(fc.asyncProperty(fileOperations(this.#mounts.length, TURNS_MAX, this.flagsToo), run), {
      seed: Number(process.env.HOLDFAST_DIFFERENTIAL_SEED ?? seed),
      numRuns: runs,
      endOnFailure: false,
    });
  }

  async run(turns: readonly FileOperations[]): Promise<void> {
    await this.#begin();
    try {
      await this.#compare(turns);
    } finally {
      if (this.flagsToo)
        for (const agents of [this.#local, this.#mounted]) await this.#agent(agents, 0, 0).ok('clearFlags');
    }
  }

  async #compare(turns: readonly FileOperations[]): Promise<void> {
    for (const [index, { mount, user, calls }] of turns.entries()) {
      const [expected, got] = await Promise.all([
        this.#agent(this.#local, mount, user).calls(calls),
        this.#agent(this.#mounted, mount, user).calls(calls),
      ]);
      this.calls += calls.length;
      for (const [at, call] of calls.entries()) {
        const answers: [Answer, Answer] = [expected[at] as Answer, got[at] as Answer];
        if (ALLOWED.some((one) => one.meets(answers, call))) continue;
        const shown = `turn ${index}: ${call.join(' ').slice(0, 200)} of user ${USERS[user]?.uid} on mount ${mount}`;
        assert.deepEqual({ shown, ...answers[1] }, { shown, ...answers[0] });
      }
    }
    const expected = await this.#agent(this.#local, 0, 0).ok('snapshot');
    for (const index of this.#mounts.keys()) {
      assert.deepEqual(
        await this.#agent(this.#mounted, index, 0).ok('snapshot'),
        expected,
        `tree of mount ${index}`,
      );
    }
  }

  /** A new directory for each run. */
  async #begin(): Promise<void> {
    const name = `run-${this.#mounts.length}-${process.pid}-${this.#next++}`;
    for (const [agent, dir] of [
      [this.#agent(this.#local, 0, 0), this.#localDir],
      [this.#agent(this.#mounted, 0, 0), this.#mounts[0] as string],
    ] as const) {
      await agent.ok('umask', 0);
      await agent.ok('mkdir', `${dir}/${name}`, 0o777);
    }
    for (const [mount, dir] of this.#mounts.entries()) {
      for (const user of USERS.keys()) {
        await this.#agent(this.#local, mount, user).ok('reset', `${this.#localDir}/${name}`);
        await this.#agent(this.#mounted, mount, user).ok('reset', `${dir}/${name}`);
      }
    }
  }

  #agent(agents: Agent[][], mount: number, user: number): Agent {
    return agents[mount]?.[user] as Agent;
  }

  end(): void {
    for (const agent of [...this.#local, ...this.#mounted].flat()) agent.end();
  }
}
