import assert from 'node:assert/strict';
import { join } from 'node:path';
import { ROOT, run } from '../../lab/command.js';

/** Operations of each run; more for longer ones. */
const OPERATIONS = Number(process.env.HOLDFAST_STORM_OPERATIONS ?? 500);
/** The first seed, and how many. */
const SEED = Number(process.env.HOLDFAST_STORM_SEED ?? 1);
const SEEDS = Number(process.env.HOLDFAST_STORM_SEEDS ?? 3);
const PROCESSES = 6;
const SIGNALLED_ROUNDS = 10;
const RUN_TIMEOUT_MS = 30_000 + OPERATIONS * 500;

/** Random operations by programs that know what must come of them. @param dir as posixSuite() */
export function stormCases(dir: () => string): void {
  const seeds = Array.from({ length: SEEDS }, (_, i) => SEED + i);
  const storm = async (program: string, ...args: number[]): Promise<void> => {
    const script = join(ROOT, 'tests', 'posix', program);
    const numbers = args.map(String);
    const { code, stdout, stderr } = await run('python3', [script, dir(), ...numbers], {
      timeoutMs: RUN_TIMEOUT_MS,
      cwd: '/',
    });
    assert.equal(code, 0, `${program} ${numbers.join(' ')}:\n${stdout.slice(-4000)}${stderr.slice(-2000)}`);
  };

  describe('random operations', () => {
    for (const seed of seeds) {
      it(`on the contents of one file leave what they would in memory (seed ${seed})`, async function () {
        this.timeout(RUN_TIMEOUT_MS + 10_000);
        await storm('file-storm.py', seed, OPERATIONS);
      });
    }

    it(`of ${PROCESSES} processes on the names of one tree leave it whole (seed ${SEED})`, async function () {
      this.timeout(RUN_TIMEOUT_MS + 10_000);
      await storm('name-storm.py', SEED, PROCESSES, OPERATIONS);
    });

    it('of a program that a signal meets all the time fail no more than without it', async function () {
      this.timeout(RUN_TIMEOUT_MS + 10_000);
      await storm('signal-storm.py', SIGNALLED_ROUNDS);
    });
  });
}
