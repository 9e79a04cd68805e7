import type { Figure } from '../../cli/bench/workloads.js';

/** Figures of one pass over one system. */
export interface Pass {
  system: string;
  figures: Figure[];
  skipped: { workload: string; reason: string }[];
}

/** Everything a run measured. */
export interface BenchRun {
  machine: string;
  command: string;
  passes: Pass[];
  /** Resident memory of each process of the cluster before and after, bytes. */
  memory: { name: string; before: number; after: number }[];
  /** Peers that were asked for and are not installed. */
  absent: string[];
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** One system's median over the passes. */
export interface Cell {
  median: number;
  /** (max - min) / median. */
  spread: number;
  passes: number;
}

export interface Row {
  workload: string;
  unit: string;
  higherIsBetter: boolean;
  cells: Record<string, Cell>;
}

/** Systems in the order in which they were measured first. */
export function systemsOf(run: BenchRun): string[] {
  return [...new Set(run.passes.map((pass) => pass.system))];
}

/** Medians over the passes, a row a workload. */
export function rowsOf(run: BenchRun): Row[] {
  const rows = new Map<string, Row>();
  const values = new Map<string, number[]>();
  for (const { system, figures } of run.passes) {
    for (const { workload, value, unit, higherIsBetter } of figures) {
      if (!rows.has(workload)) rows.set(workload, { workload, unit, higherIsBetter, cells: {} });
      const key = `${workload}\0${system}`;
      values.set(key, [...(values.get(key) ?? []), value]);
    }
  }
  for (const row of rows.values()) {
    for (const system of systemsOf(run)) {
      const measured = values.get(`${row.workload}\0${system}`);
      if (!measured) continue;
      const middle = median(measured);
      const spread = (Math.max(...measured) - Math.min(...measured)) / middle;
      row.cells[system] = { median: middle, spread, passes: measured.length };
    }
  }
  return [...rows.values()];
}

/** How many times better `system` is than `other`; above 1 is better, whatever the unit. */
export function ratio(row: Row, system: string, other: string): number | undefined {
  const a = row.cells[system]?.median;
  const b = row.cells[other]?.median;
  if (a === undefined || b === undefined) return undefined;
  return row.higherIsBetter ? a / b : b / a;
}

export function formatFigure(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** docs/benchmarks.md. */
export function markdown(run: BenchRun): string {
  const systems = systemsOf(run);
  const [first = '', ...others] = systems;
  const mib = (bytes: number): string => `${Math.round(bytes / 1024 / 1024)} MiB`;
  const passes = Math.max(...systems.map((name) => run.passes.filter((pass) => pass.system === name).length));
  const cell = (row: Row, system: string): string => {
    const one = row.cells[system];
    if (!one) return '-';
    const percent = one.passes > 1 ? ` ±${Math.round(one.spread * 50)} %` : '';
    return `${formatFigure(one.median)}${percent}`;
  };
  const ratioCell = (row: Row, other: string): string => ratio(row, first, other)?.toFixed(2) ?? '-';
  const table = rowsOf(run).map((row) => {
    const cells = [`${row.workload}, ${row.unit}`, ...systems.map((name) => cell(row, name))];
    return `| ${[...cells, ...others.map((name) => ratioCell(row, name))].join(' | ')} |`;
  });
  const skipped = new Set(
    run.passes.flatMap(({ system, skipped }) =>
      skipped.map(({ workload, reason }) => `- ${system}: ${workload}: ${reason}`),
    ),
  );
  return [
    '# Benchmarks',
    '',
    'Three metaservers, three chunkservers, three copies of everything, one mount by the kernel binding, beside other file',
    'systems with the same workloads in the same run: all on one machine and one disk. What counts is the ratio; absolute',
    'figures are those of a small shared machine. Every fsync of Holdfast reaches the disks of all in-sync replicas and of a',
    'metaserver majority. Cold: mounted anew, page cache dropped.',
    '',
    `Machine: ${run.machine}. Medians of ${passes} interleaved passes, ± half of (max - min).`,
    'The last columns are Holdfast over the other, above 1 is better for rates and times alike.',
    ...run.absent.map((line) => `Not measured: ${line}.`),
    '',
    'Reproduce:',
    '',
    '```',
    run.command,
    '```',
    '',
    `| workload | ${[...systems, ...others.map((name) => `/ ${name}`)].join(' | ')} |`,
    `|${'---|'.repeat(1 + systems.length + others.length)}`,
    ...table,
    '',
    ...(skipped.size > 0 ? ['## Not measured', '', ...skipped, ''] : []),
    '## Memory',
    '',
    "Resident memory of each of the cluster's processes, before the first and after the last workload of a pass.",
    '',
    '| process | before | after |',
    '|---|---|---|',
    ...run.memory.map((one) => `| ${one.name} | ${mib(one.before)} | ${mib(one.after)} |`),
    '',
  ].join('\n');
}
