import { GLUSTER } from './peers/gluster.js';
import { MOOSEFS } from './peers/moosefs.js';
import { PASS_THROUGH } from './peers/pass-through.js';
import { type BenchRun, type Row, ratio, rowsOf, systemsOf } from './report.js';
import { LOCAL_DISK } from './system.js';

/** Peers that keep three copies: the best of them is what each row is held against. */
const REPLICATED = [MOOSEFS, GLUSTER];
/** Of 1 / replicas of the disk's rate: every byte is written three times. */
const COPIES = 3;

/** What a run says about one goal. */
export interface Verdict {
  goal: string;
  workload: string;
  /** Measured, as the goal counts it; undefined: a row or a peer was not measured. */
  value: number | undefined;
  /** The value that meets it: at least, or at most. */
  wanted: number;
  atMost: boolean;
}

export function isMet({ value, wanted, atMost }: Verdict): boolean | undefined {
  if (value === undefined) return undefined;
  return atMost ? value <= wanted : value >= wanted;
}

/** Rows that are to be so many times as fast as the best replicated peer; all others: at least as fast. */
const TIMES_OF_PEERS: Record<string, number> = {
  'create + write 4 KiB + close': 3,
  'create + write 4 KiB + close, 8 at once': 3,
  'open + read + close, cold': 3,
  'open + read + close, warm': 3,
  'tar x': 3,
  'cp -r': 3,
  'git init + add + commit': 3,
  'git status': 3,
  'random write 4 KiB, 4 jobs, fsync at end': 2,
  'write 4 KiB + fsync, 1 writer': 2,
  'write 4 KiB + fsync, 32 writers': 2,
};

/** Rows that are to reach a part of what FUSE itself costs. */
const PART_OF_PASS_THROUGH: Record<string, number> = {
  'create + write 4 KiB + close': 0.5,
  'create + write 4 KiB + close, 8 at once': 0.5,
  'tar x': 0.5,
  'cp -r': 0.5,
  'git init + add + commit': 0.5,
  'rm -rf': 0.5,
  'stat, warm': 1,
  'open + read + close, warm': 1,
  'ls -l of all, warm': 1,
  'grep -r, warm': 1,
  'sequential read 1 MiB, cold': 0.7,
  'random read 4 KiB, cold, 4 jobs': 0.5,
  'random write 4 KiB, 4 jobs, fsync at end': 0.5,
};

const LOCAL_SYNC = 'write 4 KiB + fsync, 1 writer, p50';
const SYNCED = ['write 4 KiB + fsync', 'create + write + fsync of file and directory'];
const SYNCS_AT_MOST = 4;
const GROUP_COMMIT_AT_LEAST = 8;
const SEQUENTIAL_WRITE = 'sequential write 1 MiB + fsync';
const SEQUENTIAL_WRITE_AT_LEAST = 0.8;

/** Every goal on every row that it speaks of, for the first system of the run. */
export function verdicts(run: BenchRun): Verdict[] {
  const ours = systemsOf(run)[0] ?? '';
  const rows = new Map(rowsOf(run).map((row) => [row.workload, row]));
  const over = (row: Row | undefined, other: string) => row && ratio(row, ours, other);
  const found: Verdict[] = [];
  for (const row of rows.values()) {
    if (row.workload.endsWith(', p50')) continue;
    const peers = REPLICATED.map((peer) => over(row, peer)).filter((one) => one !== undefined);
    const wanted = TIMES_OF_PEERS[row.workload] ?? 1;
    const value = peers.length > 0 ? Math.min(...peers) : undefined;
    const goal = 'times the best replicated peer';
    found.push({ goal, workload: row.workload, value, wanted, atMost: false });
  }
  for (const [workload, wanted] of Object.entries(PART_OF_PASS_THROUGH)) {
    const value = over(rows.get(workload), PASS_THROUGH);
    found.push({ goal: 'times the C pass-through', workload, value, wanted, atMost: false });
  }
  const disk = over(rows.get(SEQUENTIAL_WRITE), LOCAL_DISK);
  return [
    ...found,
    sequentialWriteVerdict(disk && disk * COPIES, busyShare(run, SEQUENTIAL_WRITE)),
    ...commitVerdicts(rows, ours),
  ];
}

/**
 * Part of the machine's cores that were busy in a row: with all of them busy, at the same cost for each byte, the row would
 * be faster by no more than 1 over it.
 */
function busyShare(run: BenchRun, workload: string): number {
  const lap = run.cpu.find((one) => one.workload === workload);
  return lap ? lap.machineMs / lap.wallMs / run.cores : 0;
}

function sequentialWriteVerdict(thirdOfDisk: number | undefined, cores: number): Verdict {
  const [disk, busy] = [thirdOfDisk, cores].map((value) => value?.toFixed(2) ?? '-');
  return {
    goal: `of a third of the local disk's rate (${disk}), or of what the cores allow (${busy})`,
    workload: SEQUENTIAL_WRITE,
    value: thirdOfDisk && Math.max(thirdOfDisk, cores),
    wanted: SEQUENTIAL_WRITE_AT_LEAST,
    atMost: false,
  };
}

function commitVerdicts(rows: ReadonlyMap<string, Row>, ours: string): Verdict[] {
  const median = (workload: string, system: string) => rows.get(workload)?.cells[system]?.median;
  const quotient = (a: number | undefined, b: number | undefined) =>
    a === undefined || b === undefined ? undefined : a / b;
  return SYNCED.flatMap((workload) => [
    {
      goal: 'p50 in local syncs of 4 KiB',
      workload: `${workload}, 1 writer`,
      value: quotient(median(`${workload}, 1 writer, p50`, ours), median(LOCAL_SYNC, LOCAL_DISK)),
      wanted: SYNCS_AT_MOST,
      atMost: true,
    },
    {
      goal: '32 writers, times one',
      workload,
      value: quotient(median(`${workload}, 32 writers`, ours), median(`${workload}, 1 writer`, ours)),
      wanted: GROUP_COMMIT_AT_LEAST,
      atMost: false,
    },
  ]);
}

/** A table of all verdicts, and how many there are of each. */
export function verdictTable(run: BenchRun): string[] {
  const all = verdicts(run);
  const count = (met: boolean | undefined) => all.filter((one) => isMet(one) === met).length;
  const word = (met: boolean | undefined) =>
    met === undefined ? 'not measured' : met ? 'met' : '**not met**';
  const lines = all.map((one) => {
    const value = one.value === undefined ? '-' : one.value.toFixed(2);
    const wanted = `${one.atMost ? 'at most' : 'at least'} ${one.wanted}`;
    return `| ${one.workload} | ${one.goal} | ${wanted} | ${value} | ${word(isMet(one))} |`;
  });
  const total = `${count(true)} met, ${count(false)} not met, ${count(undefined)} not measured in this run.`;
  return [
    '## Goals',
    '',
    `${total} Peers with three copies: ${REPLICATED.join(', ')}.`,
    '',
    '| workload | measured as | goal | value | |',
    '|---|---|---|---|---|',
    ...lines,
    '',
  ];
}
