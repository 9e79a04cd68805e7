import { type FaultRecord, median, type StressRun } from './record.js';

/** The report for a terminal, and docs/stress.md's tables. */

const MIB = 1024 * 1024;
const mib = (bytes: number): string => `${Math.round(bytes / MIB).toLocaleString('en-US')} MiB`;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** One line for each kind of fault. */
export interface FaultRow {
  name: string;
  count: number;
  medianStallMs: number;
  longestStallMs: number;
  /** From the fault's end until the cluster was healthy, median. */
  healthyMs: number;
  /** Copied to servers that had lost their disk, MB/s, median; undefined: nothing was. */
  copiedMbps?: number;
}

export function faultRows(faults: readonly FaultRecord[]): FaultRow[] {
  const names = [...new Set(faults.map((fault) => fault.name))].sort();
  return names.map((name) => {
    const same = faults.filter((fault) => fault.name === name);
    const rates = same
      .filter((fault) => (fault.copiedBytes ?? 0) > 0)
      .map((fault) => (fault.copiedBytes ?? 0) / 1e3 / (fault.healthyMs - fault.undoneMs));
    return {
      name,
      count: same.length,
      medianStallMs: median(same.map((fault) => fault.stallMs)),
      longestStallMs: Math.max(...same.map((fault) => fault.stallMs)),
      healthyMs: median(same.map((fault) => fault.healthyMs - fault.undoneMs)),
      ...(rates.length > 0 && { copiedMbps: median(rates) }),
    };
  });
}

export interface Totals {
  operations: number;
  bytesWritten: number;
  bytesVerified: number;
  synced: number;
  reads: number;
  claims: number;
}

export function totals(run: StressRun): Totals {
  const sum = (of: (round: StressRun['rounds'][number]) => number): number =>
    run.rounds.reduce((total, round) => total + of(round), 0);
  return {
    operations: sum((round) => round.written.operations + round.verified.operations),
    bytesWritten: sum((round) => round.written.bytesWritten),
    bytesVerified: sum((round) => round.verified.bytesVerified + round.written.bytesVerified),
    synced: sum((round) => round.synced),
    reads: sum((round) => round.verdict.reads),
    claims: sum((round) => round.verdict.claims),
  };
}

/** Markdown, which reads well on a terminal. */
export function textReport(run: StressRun): string {
  const all = totals(run);
  const checked = run.rounds.filter((round) => round.fsck !== 'not there');
  const lines = [
    `\`${run.command}\`, seed ${run.seed}, ${Math.round(run.seconds)} s on ${run.machine}`,
    '',
    `- ${run.rounds.length} rounds, ${run.faults.length} faults, ${run.failures.length} failures`,
    `- fio: ${all.operations.toLocaleString('en-US')} operations, ${mib(all.bytesWritten)} written, ${mib(all.bytesVerified)} verified`,
    `- ${all.synced.toLocaleString('en-US')} fsyncs timed; ${all.reads.toLocaleString('en-US')} reads beside a writer on another mount and ${all.claims.toLocaleString('en-US')} contended creates judged`,
    `- fsck: ${checked.length === 0 ? 'not there yet' : `clean after ${checked.filter((round) => round.fsck === 'clean').length} of ${checked.length} rounds`}`,
  ];
  if (run.faults.length > 0) {
    lines.push(
      '',
      '| fault | times | longest fsync: median | longest | healthy after its end | copied |',
      '|---|---|---|---|---|---|',
      ...faultRows(run.faults).map(
        (row) =>
          `| ${row.name} | ${row.count} | ${Math.round(row.medianStallMs)} ms | ${Math.round(row.longestStallMs)} ms | ${seconds(row.healthyMs)} | ${row.copiedMbps === undefined ? '' : `${row.copiedMbps.toFixed(1)} MB/s`} |`,
      ),
    );
  }
  if (run.stalls.length > 0) {
    lines.push(
      '',
      '| fault, no other load | times | longest fsync: median | longest | target |',
      '|---|---|---|---|---|',
      ...run.stalls.map(
        (one) =>
          `| ${one.name} | ${one.stallsMs.length} | ${Math.round(median(one.stallsMs))} ms | ${Math.round(Math.max(...one.stallsMs))} ms | ${one.targetMs} ms |`,
      ),
    );
  }
  lines.push(...wipedLines(run));
  for (const script of run.scripts)
    lines.push('', `${script.name}:`, ...script.lines.map((line) => `- ${line}`));
  if (run.memory.length > 0) {
    lines.push(
      '',
      '| process | memory at first | at most | at last |',
      '|---|---|---|---|',
      ...run.memory.map(
        (one) => `| ${one.name} | ${mib(one.firstBytes)} | ${mib(one.peakBytes)} | ${mib(one.lastBytes)} |`,
      ),
    );
  }
  lines.push('', run.failures.length === 0 ? 'PASSED' : 'FAILED');
  lines.push(...run.failures.map((failure) => `- ${failure}`));
  return `${lines.join('\n')}\n`;
}

function wipedLines({ wiped }: StressRun): string[] {
  if (!wiped) return [];
  const { refills, beside, targetS } = wiped;
  const took = ({ seconds, bytes, mbps }: (typeof refills)[number]): string =>
    `${mib(bytes)} in-sync ${seconds.toFixed(1)} s after its start (${mbps.toFixed(0)} MB/s)`;
  const lines = refills.map((one) => `- ${took(one)}, at most ${targetS} s`);
  if (beside)
    lines.push(
      `- beside a writer: ${took(beside.refill)}`,
      `- the writer: ${beside.besideMbps.toFixed(1)} MB/s, alone ${beside.aloneMbps.toFixed(1)} MB/s, ratio ${beside.ratio.toFixed(2)}`,
    );
  return ['', 'A chunkserver wiped, the default cap:', ...lines];
}
