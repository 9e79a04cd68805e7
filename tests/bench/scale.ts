import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { worker } from '../../cli/bench/file-rows.js';
import { delay, systemClock } from '../../common/clock.js';
import { nodeScript, ROOT } from '../lab/command.js';
import { statusNumber } from '../lab/processes.js';
import { TestCluster } from '../lab/test-cluster.js';
import { cpuMs } from './cpu.js';
import type { Environment } from './inodes.js';
import { type Network, withDelay } from './netem.js';
import { formatFigure } from './report.js';

const CLIENTS = [1, 2, 4, 8];
const METASERVERS = [1, 3, 5];
const CHUNKSERVERS = [3, 6, 9];
const FIRST_DIRECTORY = 1000;
const DIRECTORY_STEP = 10;
const LOOKUPS = 1000;
const SPARSE_BYTES = [2 ** 20, 2 ** 25, 2 ** 30, 2 ** 35, 2 ** 40];
const WRITERS = 32;
const CREATES = 500;
const SEQUENTIAL_MIB = 64;
const IDLE_SETTLE_MS = 10_000;
const SCRIPT_TIMEOUT_MS = 7_200_000;

export interface ScaleOptions {
  /** Entries of the largest directory. */
  most: number;
  /** Of each packet, where the kernel can. */
  delayMs: number;
  /** Length of timed rows, s. */
  seconds: number;
  write: boolean;
}

/** A table that grows while it is measured. */
interface Section {
  title: string;
  head: string[];
  rows: (string | number)[][];
}

/** Measures how cost grows with clients, servers, directories and files; a report in Markdown, rewritten as it grows. */
export async function scaleBench(environment: Environment, options: ScaleOptions): Promise<void> {
  const network = await withDelay(options.delayMs);
  if (!network) return;
  const file = join(ROOT, options.write ? 'docs/scaling.md' : '.bench/scaling.md');
  mkdirSync(dirname(file), { recursive: true });
  const sections: Section[] = [];
  const save = (): void => writeFileSync(file, render(environment, options, network, sections));
  const steps = [clients, metaservers, chunkservers, directories, sparseFiles, idle];
  for (const step of steps) {
    try {
      await step(options, (section) => {
        sections.push(section);
        return (row) => {
          section.rows.push(row);
          console.error([section.title, ...row.map(text)].join(' | '));
          save();
        };
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message.slice(0, 200) : String(error);
      sections.push({
        title: `Not measured: ${step.name}`,
        head: ['reason'],
        rows: [[reason.replaceAll('\n', ' ')]],
      });
      console.error(`${step.name}: ${reason}`);
    }
  }
  save();
  process.stdout.write(render(environment, options, network, sections));
}

type AddSection = (section: Section) => (row: (string | number)[]) => void;

const text = (cell: string | number): string => (typeof cell === 'number' ? formatFigure(cell) : cell);

function render(
  environment: Environment,
  options: ScaleOptions,
  network: Network,
  sections: Section[],
): string {
  const { most, delayMs, seconds, write } = options;
  const flags = [
    `--most ${most}`,
    `--delay ${delayMs}`,
    `--seconds ${seconds}`,
    ...(write ? ['--write'] : []),
  ];
  const tables = sections.flatMap(({ title, head, rows }) => [
    `## ${title}`,
    '',
    `| ${head.join(' | ')} |`,
    `|${'---|'.repeat(head.length)}`,
    ...rows.map((row) => `| ${row.map(text).join(' | ')} |`),
    '',
  ]);
  return [
    '# Scaling',
    '',
    `Machine: ${environment.machine}. Commit ${environment.revision}. ${network.note}`,
    '',
    '```',
    `npm run bench -- --scale ${flags.join(' ')}`,
    '```',
    '',
    ...tables,
  ].join('\n');
}

async function withCluster(flags: string[], work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = new TestCluster('bench-scale', flags);
  try {
    await cluster.up();
    await cluster.waitHealthy();
    await work(cluster);
  } finally {
    await cluster.destroy();
  }
}

/** Creates and durable creates of several mounts at once, /s of all together. */
async function clients({ seconds }: ScaleOptions, add: AddSection): Promise<void> {
  const row = add({
    title: 'Clients',
    head: ['mounts', 'creates of all, /s', 'write + fsync of all, /s', 'stat cold of all, /s'],
    rows: [],
  });
  await withCluster([], async (cluster) => {
    for (const count of CLIENTS) {
      const mounts: string[] = [];
      for (let i = 0; i < count; i++) mounts.push(await cluster.mount(`c${count}-${i}`));
      const dirs = mounts.map((mount, i) => join(mount, `of-${count}-${i}`));
      for (const dir of dirs) await makeDirectory(dir);
      const rate = async (phase: string, amount: number, shift = 0): Promise<number> => {
        const runs = dirs.map((_, i) => worker(phase, dirs[(i + shift) % count] as string, amount));
        const all = await Promise.all(runs);
        return all.reduce((sum, { operations, seconds: took }) => sum + operations / took, 0);
      };
      const created = await rate('create', CREATES);
      const synced = await rate('commit', seconds);
      for (const [i, mount] of mounts.entries()) {
        await cluster.umount(mount);
        mounts[i] = await cluster.mount(`c${count}-${i}`);
      }
      row([count, created, synced, await rate('stat', CREATES)]);
      for (const mount of mounts) await cluster.umount(mount);
    }
  });
}

/** One mount on clusters of several sizes: what each change costs. */
async function ofServers(
  kind: string,
  counts: number[],
  { seconds }: ScaleOptions,
  add: AddSection,
): Promise<void> {
  const head = [kind, 'creates, /s', 'durable creates, 1 writer, /s', `${WRITERS} writers, /s`];
  const row = add({
    title: kind,
    head: [
      ...head,
      `write + fsync, ${WRITERS} writers, /s`,
      `write of ${SEQUENTIAL_MIB} MiB with fsync, MB/s`,
    ],
    rows: [],
  });
  for (const count of counts) {
    await withCluster([`--${kind}`, String(count)], async (cluster) => {
      const perSecond = async (phase: string, amount: number, writers: number): Promise<number> => {
        const dir = join(cluster.dir, `${phase}-${writers}`);
        await makeDirectory(dir);
        const { operations, seconds: took } = await worker(phase, dir, amount, writers);
        return operations / took;
      };
      row([
        count,
        await perSecond('create', CREATES, 1),
        await perSecond('commit-create', seconds, 1),
        await perSecond('commit-create', seconds, WRITERS),
        await perSecond('commit', seconds, WRITERS),
        await sequentialRate(join(cluster.dir, 'large')),
      ]);
    });
  }
}

function metaservers(options: ScaleOptions, add: AddSection): Promise<void> {
  return ofServers('metaservers', METASERVERS, options, add);
}

function chunkservers(options: ScaleOptions, add: AddSection): Promise<void> {
  return ofServers('chunkservers', CHUNKSERVERS, options, add);
}

const makeDirectory = (dir: string): Promise<string> => nodeScript('fs.mkdirSync(args[0]);', [dir]);

async function sequentialRate(file: string): Promise<number> {
  const seconds = Number(
    await nodeScript(
      `const data = Buffer.alloc(1 << 20, 7), fd = fs.openSync(args[0], 'w'), start = process.hrtime.bigint();
       for (let i = 0; i < Number(args[1]); i++) fs.writeSync(fd, data);
       fs.fsyncSync(fd); console.log(Number(process.hrtime.bigint() - start) / 1e9); fs.closeSync(fd);`,
      [file, String(SEQUENTIAL_MIB)],
      SCRIPT_TIMEOUT_MS,
    ),
  );
  return (SEQUENTIAL_MIB * 2 ** 20) / 1e6 / seconds;
}

/** One directory with ever more entries: what one more costs, and what finding one costs. */
async function directories({ most }: ScaleOptions, add: AddSection): Promise<void> {
  const row = add({
    title: 'Directories',
    head: [
      'entries',
      'creates, /s',
      `lookups cold, of ${LOOKUPS} at random, /s`,
      'readdir cold, ms',
      'us an entry',
    ],
    rows: [],
  });
  await withCluster([], async (cluster) => {
    let made = 0;
    const dirOf = (mount: string): string => join(mount, 'large');
    await makeDirectory(dirOf(cluster.dir));
    for (let entries = Math.min(FIRST_DIRECTORY, most); entries <= most; entries *= DIRECTORY_STEP) {
      const created = await script(
        `for (let i = Number(args[1]); i < Number(args[2]); i++) fs.closeSync(fs.openSync(path.join(args[0], 'entry-' + i), 'wx'));`,
        [dirOf(cluster.dir), String(made), String(entries)],
      );
      const rate = (entries - made) / created;
      made = entries;
      const mount = await cluster.mount(`d${entries}`);
      const found = await script(
        `const n = Number(args[1]); for (let i = 0; i < ${LOOKUPS}; i++) fs.lstatSync(path.join(args[0], 'entry-' + ((i * 7919) % n)));`,
        [dirOf(mount), String(entries)],
      );
      const listed = await script(
        `if (fs.readdirSync(args[0]).length !== Number(args[1])) throw new Error('a listing of another length');`,
        [dirOf(mount), String(entries)],
      );
      await cluster.umount(mount);
      row([entries.toLocaleString('en-US'), rate, LOOKUPS / found, listed * 1000, (listed * 1e6) / entries]);
    }
  });
}

/** Sparse files of ever larger size: nothing may grow with the size. */
async function sparseFiles(_options: ScaleOptions, add: AddSection): Promise<void> {
  const row = add({
    title: 'Sparse files',
    head: [
      'size',
      'make, write its last 4 KiB, fsync, ms',
      '100 reads at random, ms',
      'find the data, ms',
      'truncate, unlink, ms',
    ],
    rows: [],
  });
  await withCluster([], async (cluster) => {
    for (const bytes of SPARSE_BYTES) {
      const args = [join(cluster.dir, 'sparse'), String(bytes)];
      const position = `const size = Number(args[1]), block = Buffer.alloc(4096, 5);`;
      const make = await script(
        `${position} const fd = fs.openSync(args[0], 'w'); fs.ftruncateSync(fd, size);
         fs.writeSync(fd, block, 0, 4096, size - 4096); fs.fsyncSync(fd); fs.closeSync(fd);`,
        args,
      );
      const read = await script(
        `${position} const fd = fs.openSync(args[0], 'r');
         for (let i = 0; i < 100; i++) fs.readSync(fd, block, 0, 4096, Math.floor((size / 4096 - 1) * ((i * 37) % 100) / 100) * 4096);
         fs.closeSync(fd);`,
        args,
      );
      const seek = await script(
        `const { execFileSync } = require('node:child_process');
         execFileSync('python3', ['-c', 'import os,sys; f=os.open(sys.argv[1],0); assert os.lseek(f,0,os.SEEK_DATA)>=int(sys.argv[2])-4194304', ...args]);`,
        args,
      );
      const end = await script(`fs.truncateSync(args[0], 0); fs.unlinkSync(args[0]);`, args);
      row([sizeName(bytes), make * 1000, read * 1000, seek * 1000, end * 1000]);
    }
  });
}

const sizeName = (bytes: number): string =>
  bytes >= 2 ** 40
    ? `${bytes / 2 ** 40} TiB`
    : bytes >= 2 ** 30
      ? `${bytes / 2 ** 30} GiB`
      : `${bytes / 2 ** 20} MiB`;

/** CPU time that processes take while nobody asks them anything. */
async function idle({ seconds }: ScaleOptions, add: AddSection): Promise<void> {
  const row = add({
    title: `Idle for ${seconds} s`,
    head: ['process', 'CPU, ms a second', 'context switches by itself, /s', 'resident, MiB'],
    rows: [],
  });
  await withCluster([], async (cluster) => {
    await delay(systemClock, IDLE_SETTLE_MS);
    const pids = cluster.pids();
    const before = new Map([...pids].map(([name, pid]) => [name, usageOf(pid)]));
    await delay(systemClock, seconds * 1000);
    for (const [name, pid] of pids) {
      const [then, now] = [before.get(name) as Usage, usageOf(pid)];
      row([
        name,
        (now.cpuMs - then.cpuMs) / seconds,
        (now.switches - then.switches) / seconds,
        now.residentMib,
      ]);
    }
  });
}

interface Usage {
  cpuMs: number;
  switches: number;
  residentMib: number;
}

function usageOf(pid: number): Usage {
  return {
    cpuMs: cpuMs(pid) ?? 0,
    switches: statusNumber(pid, 'voluntary_ctxt_switches'),
    residentMib: statusNumber(pid, 'VmRSS') / 1024,
  };
}

/** Seconds that a script of a child process took, its start left out. */
async function script(code: string, args: string[]): Promise<number> {
  const timed = `const begun = process.hrtime.bigint(); ${code}\n console.log(Number(process.hrtime.bigint() - begun) / 1e9);`;
  return Number(await nodeScript(timed, args, SCRIPT_TIMEOUT_MS));
}
