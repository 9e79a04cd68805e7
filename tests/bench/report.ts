import type { Figure } from './rows.js';

/** Figures of several passes, on the mount and on the local disk. */
export interface BenchRun {
  machine: string;
  command: string;
  mount: Figure[][];
  local: Figure[][];
  /** Resident memory of each process before and after, bytes. */
  memory: { name: string; before: number; after: number }[];
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export interface Row {
  workload: string;
  unit: string;
  mount: number;
  local: number;
  /** Of the mount's figures over the passes: (max - min) / median. */
  spread: number;
  /** Mount in relation to local; above 1 is faster than the local disk. */
  ratio: number;
}

/** Medians over the passes, a row a workload. */
export function rows(run: BenchRun): Row[] {
  return (run.mount[0] ?? []).map(({ workload, unit, higherIsBetter }) => {
    const values = (passes: Figure[][]): number[] =>
      passes.flatMap((pass) => pass.filter((one) => one.workload === workload).map((one) => one.value));
    const mounted = values(run.mount);
    const mount = median(mounted);
    const local = median(values(run.local));
    const spread = (Math.max(...mounted) - Math.min(...mounted)) / mount;
    return { workload, unit, mount, local, spread, ratio: higherIsBetter ? mount / local : local / mount };
  });
}

const figure = (value: number): string =>
  value >= 100
    ? Math.round(value).toLocaleString('en-US')
    : value >= 10
      ? value.toFixed(1)
      : value.toFixed(2);

/** docs/benchmarks.md. */
export function markdown(run: BenchRun): string {
  const mib = (bytes: number): string => `${Math.round(bytes / 1024 / 1024)} MiB`;
  return [
    '# Benchmarks',
    '',
    'Three metaservers, three chunkservers, three copies of everything, one mount by the kernel binding: all on one machine',
    'and one disk, beside the same workload on that disk in the same run. What counts is the ratio; absolute figures are',
    'those of a small shared machine. Every fsync reaches the disks of all in-sync replicas and of a metaserver majority.',
    '',
    `Machine: ${run.machine}. Medians of ${run.mount.length} interleaved passes; spread is (max - min) / median of the mount.`,
    'Cold: mounted anew, page cache dropped.',
    '',
    'Reproduce:',
    '',
    '```',
    run.command,
    '```',
    '',
    '| workload | Holdfast | local disk | Holdfast / local | spread |',
    '|---|---|---|---|---|',
    ...rows(run).map(
      (row) =>
        `| ${row.workload} | ${figure(row.mount)} ${row.unit} | ${figure(row.local)} ${row.unit} | ${row.ratio.toFixed(3)} | ${Math.round(row.spread * 100)} % |`,
    ),
    '',
    '## Memory',
    '',
    'Resident memory of each process, before the first and after the last workload of the run.',
    '',
    '| process | before | after |',
    '|---|---|---|',
    ...run.memory.map((one) => `| ${one.name} | ${mib(one.before)} | ${mib(one.after)} |`),
    '',
  ].join('\n');
}
