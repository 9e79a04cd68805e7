import assert from 'node:assert/strict';
import { type Outcome, runSeeds } from './run-seeds.js';
import { Simulation, type SimulationResult } from './simulation.js';

const SEEDS = Number(process.env.HOLDFAST_SIM_SEEDS ?? 500);
const JOBS = 2;
/** The seeds take what the tests of real mounts, which run at the same time and wait for time to pass, leave idle. */
const NICENESS = 10;
const HANGING_SEEDS = 5;
const SHARED_SEEDS = 40;
/** What a metaserver logs then. */
const SLOWER_DISK = 'the disk is slower than those of the others: handing over';

describe('the whole cluster in simulation', function () {
  this.timeout(1_200_000);
  const stackTraceLimit = Error.stackTraceLimit;
  before(() => {
    Error.stackTraceLimit = 0;
  });
  after(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });

  it('keeps what it acknowledged, whatever fails', async () => {
    const outcomes: Outcome[] = [];
    const range = { first: 1, seeds: SEEDS, jobs: JOBS, keepGoing: false, niceness: NICENESS };
    await runSeeds(range, (outcome) => outcomes.push(outcome));
    const results: SimulationResult[] = [];
    for (const outcome of outcomes) {
      if ('error' in outcome) assert.fail(outcome.error);
      results.push(outcome.result);
    }
    assert.equal(results.length, SEEDS);
    const sum = (of: (result: SimulationResult) => number): number =>
      results.reduce((total, result) => total + of(result), 0);
    const undecided = sum((result) => result.undecided);
    assert.ok(undecided <= SEEDS / 20, `${undecided} histories are not decided`);
    // What was checked must have happened.
    const least = {
      ...{ synced: 5, reads: 50, operations: 100, elections: 1, faults: 5 },
      ...{ expired: 0.03, damaged: 0.05 },
    } as const;
    for (const [figure, perSeed] of Object.entries(least) as [keyof typeof least, number][]) {
      const total = sum((result) => result[figure]);
      assert.ok(total > perSeed * SEEDS, `${total} ${figure} in ${SEEDS} seeds`);
    }
  });

  it('gives an order to all that mounts do with files that all of them write and truncate', async () => {
    const outcomes: Outcome[] = [];
    const range = { first: 1, seeds: SHARED_SEEDS, jobs: JOBS, keepGoing: false, niceness: NICENESS };
    await runSeeds({ ...range, shared: true }, (outcome) => outcomes.push(outcome));
    let operations = 0;
    for (const outcome of outcomes) {
      if ('error' in outcome) assert.fail(outcome.error);
      assert.equal(outcome.result.undecided, 0);
      operations += outcome.result.operations;
    }
    assert.ok(operations > 200 * SHARED_SEEDS, `${operations} operations`);
  });

  it('keeps it while leaders with a hanging disk hand over', async () => {
    let handedOver = 0;
    for (let seed = 1; seed <= HANGING_SEEDS; seed++) {
      const simulation = new Simulation({ seed, verbose: true, favourite: 'hanging disk of the leader' });
      await simulation.run();
      handedOver += simulation.world.trace.lines.filter((line) => line.endsWith(SLOWER_DISK)).length;
    }
    assert.ok(handedOver > 0, 'some leader handed over');
  });

  it('runs the same for the same seed, and otherwise for another', async () => {
    const [first, second, other] = [
      await new Simulation({ seed: 7 }).run(),
      await new Simulation({ seed: 7, verbose: true }).run(),
      await new Simulation({ seed: 8 }).run(),
    ];
    assert.deepEqual(second, first);
    assert.notEqual(other.hash, first.hash);
  });
});
