import type { Figure } from '../../cli/bench/workloads.js';
import type { CpuLap } from './cpu.js';

/** Figures of one pass over one system. */
export interface Pass {
  system: string;
  figures: Figure[];
  skipped: { workload: string; reason: string }[];
}

/** Everything a run measured. */
export interface BenchRun {
  machine: string;
  cores: number;
  command: string;
  /** Commit that was measured. */
  revision: string;
  /** How long each system worked before its first row, in each pass. */
  warmUpSeconds: number;
  passes: Pass[];
  /** Resident memory of each process of the cluster before and after, bytes. */
  memory: { name: string; before: number; after: number }[];
  /** CPU time of the first system's processes in its first pass, workload by workload. */
  cpu: CpuLap[];
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
