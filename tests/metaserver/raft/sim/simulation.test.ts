import { Simulation } from './simulation.js';

const SEEDS = Number(process.env.RAFT_SIM_SEEDS ?? 200);
const FIRST_SEED = Number(process.env.RAFT_SIM_SEED ?? 1);

function simulate(seed: number, voters: number, servers: number): { elections: number; reads: number } {
  try {
    return new Simulation({ seed, voters, servers }).run();
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
});
