import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { Arguments } from './arguments.js';
import { Simulation, type SimulationResult } from './simulation.js';

/** What became of one seed. */
export type Outcome =
  | { seed: number; result: SimulationResult }
  | { seed: number; error: string; kind: FailureKind };

/** A wrong answer, or work without an end. */
export type FailureKind = 'failure' | 'livelock';

/** Which seeds are run, and how. */
export type SeedRange = Pick<Arguments, 'first' | 'seeds' | 'jobs' | 'keepGoing'> &
  Partial<Pick<Arguments, 'mutation' | 'shared' | 'trace'>> & {
    /** Of the processes that share the seeds, as nice(1) has it; default 0. */
    niceness?: number;
  };

/** The second argument of such a process. */
export const SHARED = 'shared';
const WORKER = new URL('./seed-worker.js', import.meta.url);
/** Most functions run too seldom to be optimised, and the processes that share the seeds leave no processor to collect garbage on. */
const WORKER_FLAGS = ['--always-sparkplug', '--single-threaded-gc'];

/** One run, whatever comes of it. */
export async function runSeed(
  seed: number,
  { mutation, shared, trace }: Pick<SeedRange, 'mutation' | 'shared' | 'trace'>,
): Promise<Outcome> {
  const simulation = new Simulation({ seed, verbose: trace !== undefined, mutation, shared });
  try {
    return { seed, result: await simulation.run() };
  } catch (error) {
    const { message, cause } = error as Error;
    const kind = cause instanceof Error && cause.name === 'LivelockError' ? 'livelock' : 'failure';
    return { seed, error: message, kind };
  } finally {
    if (trace) writeFileSync(trace, `${simulation.world.trace.lines.join('\n')}\n`);
  }
}

/** The seeds that are still to be run, in order, until there are none or the runs are stopped. */
function queueOf({ first, seeds }: SeedRange): { next(): number | undefined; stop(): void } {
  let at = first;
  let end = first + seeds;
  return {
    next: () => (at < end ? at++ : undefined),
    stop: () => {
      end = at;
    },
  };
}

/**
 * Runs all seeds, in this process or in others. With several of them the outcomes come in any order.
 * @throws Error a process ended before its seed
 */
export async function runSeeds(args: SeedRange, told: (outcome: Outcome) => void): Promise<void> {
  const queue = queueOf(args);
  const tell = (outcome: Outcome): void => {
    if ('error' in outcome && !args.keepGoing) queue.stop();
    told(outcome);
  };
  if (args.jobs === 1) {
    for (let seed = queue.next(); seed !== undefined; seed = queue.next()) {
      tell(await runSeed(seed, args));
    }
    return;
  }
  const workers = Array.from({ length: Math.min(args.jobs, args.seeds) }, () =>
    fork(WORKER, [args.mutation?.name ?? '', args.shared ? SHARED : ''], { execArgv: WORKER_FLAGS }),
  );
  for (const { pid } of workers) if (args.niceness && pid) setPriority(pid, args.niceness);
  try {
    await Promise.all(workers.map((worker) => feed(worker, () => queue.next(), tell)));
  } finally {
    for (const worker of workers) worker.kill();
  }
}

/** Gives a process one seed after the other. */
function feed(
  worker: ChildProcess,
  next: () => number | undefined,
  tell: (outcome: Outcome) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let running: number | undefined;
    const send = (): void => {
      running = next();
      if (running === undefined) resolve();
      else worker.send(running);
    };
    worker.on('message', (outcome: Outcome) => {
      tell(outcome);
      send();
    });
    worker.on('error', reject);
    worker.on('exit', (code, signal) => {
      if (running !== undefined) reject(new Error(`seed ${running}: its process ended: ${signal ?? code}`));
    });
    send();
  });
}
