import type { runSuite } from '../../cli/bench/suite.js';
import { type BenchSizes, type Group, Recorder } from '../../cli/bench/workloads.js';
import type { Clock } from '../../common/clock.js';

/**
 * Something of every kind: V8 is slow until it has compiled what is used, and throws away what it compiled for one kind of work
 * when another one comes for the first time, as servers that have been in use for a while have seen it.
 */
export const WARM_UP_GROUPS: readonly Group[] = ['sequential', 'random', 'commit', 'files'];
const WARM_UP_SIZES: BenchSizes = { sequentialMib: 64, seconds: 1, files: 300 };

export interface WarmUpOptions {
  /** No further workload is begun behind it; 0: no warm-up. */
  warmUpMs: number;
  clock: Clock;
  suite: typeof runSuite;
  interrupted?(): boolean;
}

/**
 * Works in a directory without measuring, again and again. What fails is not told: the rows will say it.
 * @throws Error the directory cannot be used at all
 */
export async function warmUp(directory: string, options: WarmUpOptions): Promise<void> {
  const { warmUpMs, clock, suite } = options;
  const end = clock.now() + warmUpMs;
  const isOver = (): boolean => clock.now() >= end || options.interrupted?.() === true;
  while (!isOver()) {
    const out = new Recorder({ timeIsOver: isOver });
    await suite(directory, { groups: WARM_UP_GROUPS, sizes: WARM_UP_SIZES }, out);
    if (out.figures.length === 0) return;
  }
}
