/** One figure of one workload on one directory. */
export interface Figure {
  workload: string;
  value: number;
  unit: string;
  higherIsBetter: boolean;
}

/** A workload that could not be run, and why. */
export interface Skipped {
  workload: string;
  reason: string;
}

/** In the order in which they are measured: synced writes and creates before files, whose first rows need no mount made anew. */
export const GROUPS = ['sequential', 'random', 'commit', 'files', 'shell'] as const;
export type Group = (typeof GROUPS)[number];

export interface BenchSizes {
  /** Of the file for sequential rows, MiB. */
  sequentialMib: number;
  /** Of each random and each commit row, seconds. */
  seconds: number;
  /** Files of the metadata rows. */
  files: number;
}

/** The directory that is measured. */
export interface BenchTarget {
  /** Empty or not; everything happens in a subdirectory. It may change with cold(). */
  dir(): string;
  /** Drops caches: the client's by mounting anew where that can be done, the kernel's by drop_caches. */
  cold(): Promise<void>;
}

export interface RecorderHooks {
  /** What is measured begins now; told again when that was still preparation. */
  onBegin?(): void;
  onFigure?(figure: Figure): void;
  /** Workloads that have not begun then are left out. */
  timeIsOver?(): boolean;
}

/** Collects what a run measures, and tells of each figure as it comes. */
export class Recorder {
  readonly figures: Figure[] = [];
  readonly skipped: Skipped[] = [];
  readonly #hooks: RecorderHooks;

  constructor(hooks: RecorderHooks = {}) {
    this.#hooks = hooks;
  }

  /** To be called by a workload whose preparation is over; attempt() does it for the others. */
  begin(): void {
    this.#hooks.onBegin?.();
  }

  add(workload: string, value: number, unit: string, higherIsBetter = true): void {
    const figure = { workload, value, unit, higherIsBetter };
    this.figures.push(figure);
    this.#hooks.onFigure?.(figure);
  }

  /** Runs a workload; one that fails is recorded with its reason and the others go on. */
  async attempt(workload: string, work: () => Promise<void>): Promise<void> {
    await this.finish(workload, async () => {
      if (this.#hooks.timeIsOver?.()) throw new Error('the time for this pass was over');
      this.begin();
      await work();
    });
  }

  /** As attempt(), whatever the time. */
  async finish(workload: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.skipped.push({ workload, reason: reason.replaceAll(/\s+/g, ' ').slice(0, 300) });
    }
  }
}
