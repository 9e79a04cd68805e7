import { parseArgs } from 'node:util';
import { MUTATIONS } from './mutations/index.js';
import type { SimulationOptions } from './simulation.js';

const JOBS_MAX = 64;

export const USAGE = `Runs the whole cluster in simulation, one run for each seed.

  npm run sim -- [--seeds N] [--seed S] [--jobs J] [--json] [--trace FILE] [--mutation NAME] [--shared]
                 [--keep-going]

  --seeds N        how many seeds; default 100, or 1 when --seed is given
  --seed S         the first seed; default 1. One seed is one exact run
  --jobs J         so many processes share the seeds; default 1, at most ${JOBS_MAX}
  --json           one line of JSON at the end instead of text
  --trace FILE     writes what happened in the last run, line by line; with one job
  --mutation NAME  plants a bug: ${MUTATIONS.map(({ name }) => name).join(', ')}
  --shared         only programs that write, append to and truncate the same files, all at once
  --keep-going     does not stop at the first seed that fails

Exit codes: 0 all seeds hold, 1 one does not, 2 bad arguments.
`;

export interface Arguments {
  help: boolean;
  seeds: number;
  first: number;
  jobs: number;
  json: boolean;
  keepGoing: boolean;
  trace: string | undefined;
  mutation: SimulationOptions['mutation'];
  shared: boolean | undefined;
}

/** @throws Error with one line for whoever typed it */
export function argumentsOf(argv: string[]): Arguments {
  const { values } = parseArgs({
    args: argv,
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      jobs: { type: 'string' },
      json: { type: 'boolean', default: false },
      trace: { type: 'string' },
      mutation: { type: 'string' },
      shared: { type: 'boolean' },
      'keep-going': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const count = (name: 'seeds' | 'seed' | 'jobs', absent: number, most = Number.MAX_SAFE_INTEGER): number => {
    const text = values[name];
    if (text === undefined) return absent;
    const number = Number(text);
    if (!Number.isSafeInteger(number) || number < 1 || number > most) {
      const range = most === Number.MAX_SAFE_INTEGER ? 'from 1 on' : `from 1 to ${most}`;
      throw new Error(`--${name} ${text}: not a number ${range}`);
    }
    return number;
  };
  const mutation = MUTATIONS.find(({ name }) => name === values.mutation);
  if (values.mutation !== undefined && !mutation) {
    throw new Error(`--mutation ${values.mutation}: there is no such one, see --help`);
  }
  const { json, trace, help, shared, 'keep-going': keepGoing } = values;
  const jobs = count('jobs', 1, JOBS_MAX);
  if (trace !== undefined && jobs > 1) throw new Error('--trace: only with one job');
  const seeds = count('seeds', values.seed === undefined ? 100 : 1);
  return { help, seeds, first: count('seed', 1), jobs, json, keepGoing, trace, mutation, shared };
}
