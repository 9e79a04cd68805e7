import assert from 'node:assert/strict';
import type { runSuite } from '../../cli/bench/suite.js';
import { ManualClock } from '../client/support/manual-clock.js';
import { type PassOptions, runPasses } from './passes.js';
import type { BenchRun } from './report.js';
import type { System } from './system.js';

const PASS_MS = 1000;

describe('a run of the benchmark', () => {
  let downs: string[];
  let clock: ManualClock;
  beforeEach(() => {
    downs = [];
    clock = new ManualClock();
  });

  const system = (name: string, broken: Partial<System> = {}): System => ({
    name,
    missing: () => undefined,
    up: async () => '/nowhere',
    remount: async () => '/nowhere',
    down: async () => void downs.push(name),
    ...broken,
  });
  const emptyRun = (): BenchRun => ({
    ...{ machine: '', cores: 1, revision: '', command: '', warmUpSeconds: 0 },
    ...{ passes: [], memory: [], cpu: [], absent: [] },
  });
  /** Two workloads with a remount between them, as the real one has. */
  const suite: typeof runSuite = async (_directory, { remount }, out) => {
    await out.attempt('create', async () => out.add('create', 1, '/s'));
    await out.attempt('a cold read', async () => {
      await remount?.();
      out.add('a cold read', 1, '/s');
    });
  };
  const options = (saved: number[], run: BenchRun): PassOptions => ({
    passes: 3,
    groups: ['files'],
    sizes: { sequentialMib: 4, seconds: 1, files: 1 },
    limitMs: PASS_MS,
    warmUpMs: 0,
    clock,
    tell: () => undefined,
    save: () => saved.push(run.passes.length),
    suite,
  });

  it('goes on without a system that does not come up, and leaves it out when it has failed twice', async () => {
    const run = emptyRun();
    const saved: number[] = [];
    const up = () => Promise.reject(new Error('no glusterd'));
    await runPasses([system('whole'), system('broken', { up })], run, options(saved, run));
    const of = (name: string) => run.passes.filter((pass) => pass.system === name);
    assert.equal(of('whole').length, 3);
    assert.ok(of('whole').every(({ figures }) => figures.length === 2));
    assert.equal(of('broken').length, 2);
    assert.deepEqual(of('broken')[0]?.skipped, [{ workload: 'the whole pass', reason: 'no glusterd' }]);
    assert.deepEqual(saved, [1, 2, 3, 4, 5], 'saved behind each system');
    assert.equal(downs.filter((name) => name === 'broken').length, 2, 'taken down although it never was up');
  });

  it('keeps what was measured of a system that dies meanwhile', async () => {
    const run = emptyRun();
    const remount = () => Promise.reject(new Error('Transport endpoint is not connected'));
    await runPasses([system('dies', { remount })], run, { ...options([], run), passes: 1 });
    const [pass] = run.passes;
    assert.deepEqual(
      pass?.figures.map(({ workload }) => workload),
      ['create'],
    );
    assert.match(pass?.skipped[0]?.reason ?? '', /not connected/);
  });

  it('warms each system up alike in each pass before its first row, unrecorded and beside the time of the pass', async () => {
    const run = emptyRun();
    const calls: string[] = [];
    const timed: typeof runSuite = async (directory, { groups, remount }, out) => {
      calls.push(`${directory} ${groups.join('+')}${remount ? ' measured' : ''}`);
      await out.attempt('work', async () => {
        await clock.advance(PASS_MS - 1);
        out.add('work', 1, '/s');
      });
    };
    const at = (name: string) => system(name, { up: async () => name });
    const warm = { ...options([], run), passes: 2, warmUpMs: 2 * PASS_MS, suite: timed };
    await runPasses([at('a'), at('b')], run, warm);
    const ofPass = (name: string) => [
      ...Array(3).fill(`${name} sequential+random+commit+files`),
      `${name} files measured`,
    ];
    assert.deepEqual(calls, [...ofPass('a'), ...ofPass('b'), ...ofPass('a'), ...ofPass('b')]);
    assert.deepEqual(
      run.passes.map(({ figures, skipped }) => [figures.length, skipped.length]),
      Array(4).fill([1, 0]),
    );
  });

  it('goes on to the rows when nothing of the warm-up succeeds', async () => {
    const run = emptyRun();
    let rounds = 0;
    const failing: typeof runSuite = async (_directory, _options, out) => {
      rounds++;
      await out.attempt('work', () => Promise.reject(new Error('EIO')));
    };
    const warm = { ...options([], run), passes: 1, warmUpMs: PASS_MS, suite: failing };
    await runPasses([system('fails')], run, warm);
    assert.equal(rounds, 2);
    assert.deepEqual(run.passes[0]?.skipped, [{ workload: 'work', reason: 'EIO' }]);
  });

  it('begins nothing more after an interrupt', async () => {
    const run = emptyRun();
    let isInterrupted = false;
    const remount = async (): Promise<string> => {
      isInterrupted = true;
      return '/nowhere';
    };
    const systems = [system('first', { remount }), system('second')];
    await runPasses(systems, run, { ...options([], run), interrupted: () => isInterrupted });
    assert.deepEqual(
      run.passes.map((pass) => pass.system),
      ['first'],
    );
    assert.deepEqual(downs, ['first']);
  });

  it('begins no further workload when the time of a pass is over, and takes the system down', async () => {
    const run = emptyRun();
    const remount = async (): Promise<string> => {
      await clock.advance(PASS_MS + 1);
      return '/nowhere';
    };
    const twice: typeof runSuite = async (...args) => {
      await suite(...args);
      await suite(...args);
    };
    await runPasses([system('slow', { remount })], run, { ...options([], run), passes: 1, suite: twice });
    assert.equal(run.passes[0]?.figures.length, 2);
    assert.deepEqual(
      run.passes[0]?.skipped.map(({ workload }) => workload),
      ['create', 'a cold read'],
    );
    assert.match(run.passes[0]?.skipped[0]?.reason ?? '', /time for this pass was over/);
    assert.deepEqual(downs, ['slow']);
  });
});
