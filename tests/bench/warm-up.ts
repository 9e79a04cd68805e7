import type { runSuite } from '../../cli/bench/suite.js';
import { type BenchSizes, type Group, Recorder } from '../../cli/bench/workloads.js';
import type { Clock } from '../../common/clock.js';

/** Small files and syncs: they run the code of every process, on which V8 is slow until it has compiled what is used. */
export const WARM_UP_GROUPS: readonly Group[] = ['commit', 'files'];
const WARM_UP_SIZES: BenchSizes = { sequentialMib: 1, seconds: 1, files: 300 };

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
    const out = new Recorder(undefined, isOver);
    await suite(directory, { groups: WARM_UP_GROUPS, sizes: WARM_UP_SIZES }, out);
    if (out.figures.length === 0) return;
  }
}
