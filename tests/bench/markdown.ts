import { verdictTable } from './goals.js';
import { type BenchRun, formatFigure, type Row, ratio, rowsOf, systemsOf } from './report.js';

/** Cores that were busy in each row: what binds when all of the machine's are. */
function cpuTable({ cpu }: BenchRun): string[] {
  if (cpu.length === 0) return [];
  const kinds = [...new Set(cpu.flatMap((lap) => Object.keys(lap.cpuMs)))];
  const lines = cpu.map(({ workload, wallMs, machineMs, cpuMs }) => {
    const cores = kinds.map((kind) => (cpuMs[kind] ?? 0) / wallMs);
    const all = cores.reduce((sum, one) => sum + one, 0);
    const cells = [...cores, all, machineMs / wallMs].map((one) => one.toFixed(2));
    return `| ${[workload, `${(wallMs / 1000).toFixed(1)} s`, ...cells].join(' | ')} |`;
  });
  return [
    '## Processor',
    '',
    "Cores that were busy in each row of the first pass: the cluster's processes, all of them, and the whole machine, with the",
    'programs that make the calls (their start is in the row) and what the kernel does for nobody in particular. Where nearly',
    'all are busy, they are what binds.',
    '',
    `| workload | time | ${[...kinds, 'cluster', 'machine'].join(' | ')} |`,
    `|${'---|'.repeat(kinds.length + 4)}`,
    ...lines,
    '',
  ];
}

function warmUpLine({ warmUpSeconds }: BenchRun): string {
  if (warmUpSeconds === 0) return 'No system was warmed up: the first rows are those of young processes.';
  return `Before its first row, in each pass, each system worked for ${warmUpSeconds} s on large and small files, which is not measured.`;
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
    `Machine: ${run.machine}. Commit ${run.revision}. Medians of ${passes} interleaved passes, ± half of (max - min).`,
    warmUpLine(run),
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
    ...verdictTable(run),
    ...cpuTable(run),
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
