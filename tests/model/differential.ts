import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Agent, type Answer } from '../posix/agent.js';
import { ALICE, BOB, ROOT_USER } from '../posix/bench.js';
import { type FileOperation, fileOperations } from './file-operations.js';

const USERS = [ROOT_USER, ALICE, BOB];
const OPERATIONS_MAX = 60;
const DEFAULT_RUNS = 50;

/** What may differ, and why. An operation is left out of the comparison where it meets one of these. */
const ALLOWED: { reason: string; meets(answers: [Answer, Answer], operation: FileOperation): boolean }[] = [
  {
    reason: 'errnos that POSIX leaves to the system: EEXIST and ENOTEMPTY of one cause',
    meets: ([a, b]) => [a.errno, b.errno].sort().join() === 'EEXIST,ENOTEMPTY',
  },
];

/** The same operations on a local tree and on one or more mounts of one directory; every answer and the trees must be equal. */
export class Differential {
  readonly #local: Agent[][];
  readonly #mounted: Agent[][];
  readonly #localDir: string;
  readonly #mounts: readonly string[];
  #next = 0;

  /** @param mounts directories that show one tree */
  constructor(local: string, mounts: readonly string[]) {
    this.#localDir = local;
    this.#mounts = mounts;
    this.#local = mounts.map(() => USERS.map((user) => new Agent(local, user)));
    this.#mounted = mounts.map((dir) => USERS.map((user) => new Agent(dir, user)));
  }

  /** Random sequences; what fails is made as short as it can be. HOLDFAST_DIFFERENTIAL_RUNS and _SEED say how many, and which. */
  async check(seed: number, defaultRuns = DEFAULT_RUNS): Promise<void> {
    const runs = Number(process.env.HOLDFAST_DIFFERENTIAL_RUNS ?? defaultRuns);
    await fc.assert(
      fc.asyncProperty(fileOperations(this.#mounts.length, OPERATIONS_MAX), (operations) =>
        this.run(operations),
      ),
      { seed: Number(process.env.HOLDFAST_DIFFERENTIAL_SEED ?? seed), numRuns: runs, endOnFailure: false },
    );
  }

  async run(operations: readonly FileOperation[]): Promise<void> {
    await this.#begin();
    for (const [index, operation] of operations.entries()) {
      const { mount, user, call } = operation;
      const answers = await Promise.all([
        this.#agent(this.#local, mount, user).call(...call),
        this.#agent(this.#mounted, mount, user).call(...call),
      ]);
      if (ALLOWED.some((one) => one.meets(answers, operation))) continue;
      const [expected, got] = answers;
      const shown = `operation ${index}: ${call.join(' ').slice(0, 200)} of user ${USERS[user]?.uid} on mount ${mount}`;
      assert.deepEqual({ shown, ...got }, { shown, ...expected });
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
