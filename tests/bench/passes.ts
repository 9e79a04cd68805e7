import { runSuite } from '../../cli/bench/suite.js';
import { type BenchSizes, type Group, Recorder } from '../../cli/bench/workloads.js';
import type { Clock } from '../../common/clock.js';
import { residentMemory } from '../lab/processes.js';
import { CpuMeter } from './cpu.js';
import type { BenchRun } from './report.js';
import type { System } from './system.js';
import { warmUp } from './warm-up.js';

/** A system that failed so often in a row is left out of the passes that follow. */
const FAILURES_MAX = 2;
/** Ending a system may take so long; what is left of it then is said, and the run goes on. */
const DOWN_TIMEOUT_MS = 120_000;
const UP_TIMEOUT_MS = 300_000;
/** How the second figure of one workload is named. */
const P50_OF_ROW_BEFORE = ', p50';

export interface PassOptions {
  passes: number;
  groups: readonly Group[];
  sizes: BenchSizes;
  /** After so long no further workload of a system's pass is begun; the warm-up does not count. */
  limitMs: number;
  /** How long each system works before its first row, in each pass; 0: not at all. */
  warmUpMs: number;
  clock: Clock;
  /** One line for a person. */
  tell(line: string): void;
  /** Called whenever `run` has grown: a run that is lost later has been saved. */
  save(): void;
  /** Nothing more is begun once it says so. Default: never. */
  interrupted?(): boolean;
  /** What a pass does with the directory. Default: the workloads. */
  suite?: typeof runSuite;
}

/** Runs interleaved passes over the systems. Nothing that one of them does ends the run. */
export async function runPasses(
  systems: readonly System[],
  run: BenchRun,
  options: PassOptions,
): Promise<void> {
  const failures = new Map<System, number>();
  for (let pass = 1; pass <= options.passes; pass++) {
    for (const system of systems) {
      if (options.interrupted?.()) return;
      if ((failures.get(system) ?? 0) >= FAILURES_MAX) continue;
      const failed = await measure(system, run, options);
      failures.set(system, failed ? (failures.get(system) ?? 0) + 1 : 0);
      options.save();
    }
    options.tell(`pass ${pass} of ${options.passes} done`);
  }
}

/** One pass over one system: up, measured, down. @returns whether it could not be measured as a whole */
async function measure(system: System, run: BenchRun, options: PassOptions): Promise<boolean> {
  const { groups, sizes, clock, tell, suite = runSuite } = options;
  let begun = clock.now();
  const isFirst = run.passes.length === 0;
  let meter: CpuMeter | undefined;
  const out = new Recorder({
    onBegin: () => meter?.begin(),
    onFigure: ({ workload, value, unit }) => {
      tell(`${system.name}: ${workload}: ${value.toFixed(2)} ${unit}`);
      if (meter && !workload.endsWith(P50_OF_ROW_BEFORE)) run.cpu.push(meter.lap(workload));
    },
    timeIsOver: () => clock.now() - begun > options.limitMs || options.interrupted?.() === true,
  });
  const known = out.skipped.length;
  // What is measured belongs to the run at once: an interrupt must not lose it.
  run.passes.push({ system: system.name, figures: out.figures, skipped: out.skipped });
  await out.attempt('the whole pass', async () => {
    const directory = await within(clock, UP_TIMEOUT_MS, 'coming up', system.up());
    const warmFrom = clock.now();
    await warmUp(directory, { ...options, suite });
    begun += clock.now() - warmFrom;
    const pids = system.pids?.() ?? new Map<string, number>();
    if (isFirst && system.pids) meter = new CpuMeter(system.pids, clock);
    const before = residentMemory(pids);
    await suite(directory, { groups, sizes, remount: () => system.remount() }, out);
    if (system.name === run.passes[0]?.system) {
      const after = residentMemory(pids);
      run.memory = [...before].map(([name, bytes]) => ({ name, before: bytes, after: after.get(name) ?? 0 }));
    }
  });
  await out.finish('the end of it', () => within(clock, DOWN_TIMEOUT_MS, 'going down', system.down()));
  for (const { workload, reason } of out.skipped.slice(known)) tell(`${system.name}: ${workload}: ${reason}`);
  return out.figures.length === 0;
}

async function within<T>(clock: Clock, ms: number, what: string, work: Promise<T>): Promise<T> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const timer = clock.after(ms, () => reject(new Error(`${what} took more than ${ms} ms`)));
    cancel = () => timer.cancel();
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    cancel();
  }
}
