import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sh } from './child.js';
import { commitRows, fileRows } from './file-rows.js';
import { randomRows, sequentialRows } from './fio-rows.js';
import { shellRows } from './shell-rows.js';
import type { BenchSizes, BenchTarget, Group, Recorder } from './workloads.js';

const REMOUNT_TIMEOUT_MS = 120_000;

export interface SuiteOptions {
  sizes: BenchSizes;
  groups: readonly Group[];
  /** Mounts the directory anew; it gives the directory to go on with. Absent: only the page cache is dropped. */
  remount?: () => Promise<string>;
}

/** Runs the groups of workloads in a new subdirectory, and removes it. */
export async function runSuite(directory: string, options: SuiteOptions, out: Recorder): Promise<void> {
  const name = `holdfast-bench-${process.pid}`;
  let root = directory;
  const target: BenchTarget = {
    dir: () => join(root, name),
    async cold() {
      if (options.remount) root = await options.remount();
      await dropPageCache();
    },
  };
  await mkdir(target.dir());
  const { sizes } = options;
  const runs: Record<Group, () => Promise<void>> = {
    sequential: () => sequentialRows(target, sizes, out),
    random: () => randomRows(target, sizes, out),
    commit: () => commitRows(target, sizes, out),
    files: () => fileRows(target, sizes, out),
    shell: () => shellRows(target, out),
  };
  try {
    for (const group of options.groups) await out.attempt(`group ${group}`, runs[group]);
  } finally {
    await rm(target.dir(), { recursive: true, force: true });
  }
}

/** Whether this user may drop the kernel's page cache. */
export function mayDropPageCache(): boolean {
  return process.getuid?.() === 0;
}

async function dropPageCache(): Promise<void> {
  if (!mayDropPageCache()) return;
  await sh('sync', { timeoutMs: REMOUNT_TIMEOUT_MS });
  await writeFile('/proc/sys/vm/drop_caches', '3');
}
