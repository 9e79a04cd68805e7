import assert from 'node:assert/strict';
import { Simulation } from './simulation.js';

const SEEDS = Number(process.env.RAFT_SIM_SEEDS ?? 200);
/** A server that forgets its votes and its log is found within so many seeds. */
const AMNESIA_SEEDS = 60;
const FIRST_SEED = Number(process.env.RAFT_SIM_SEED ?? 1);

function simulate(
  seed: number,
  voters: number,
  servers: number,
  wipes?: 'replaced',
): { elections: number; reads: number; wipes: number } {
  try {
    return new Simulation({ seed, voters, servers, wipes }).run();
  } catch (error) {
    throw new Error(
      `seed ${seed} of ${voters} voters fails; replay: RAFT_SIM_SEED=${seed} RAFT_SIM_SEEDS=1`,
      {
        cause: error,
      },
    );
  }
}

describe('raft under a hostile network', () => {
  for (const [voters, servers] of [
    [3, 3],
    [3, 5],
    [5, 5],
    [1, 3],
  ] as const) {
    it(`keeps its promises: ${voters} voters of ${servers} servers`, () => {
      for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS / 4; seed++) simulate(seed, voters, servers);
    });
  }

  for (const voters of [3, 5]) {
    it(`keeps them while servers lose their disks: ${voters} voters`, () => {
      let wipes = 0;
      const end = FIRST_SEED + SEEDS / 4;
      for (let seed = FIRST_SEED; seed < end; seed++)
        wipes += simulate(seed, voters, voters, 'replaced').wipes;
      assert.ok(SEEDS < 40 || wipes > SEEDS / 10, `${wipes} disks were lost`);
    });
  }

  it('finds servers that come back with empty disks as those that they were', () => {
    let found = 0;
    for (let seed = 1; seed <= AMNESIA_SEEDS && found === 0; seed++) {
      try {
        new Simulation({ seed, voters: 3, servers: 3, wipes: 'amnesia' }).run();
      } catch (error) {
        assert.equal((error as Error).name, 'AssertionError');
        found++;
      }
    }
    assert.ok(found > 0, `none of ${AMNESIA_SEEDS} seeds shows it`);
  });
});
