import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { worker } from '../../cli/bench/file-rows.js';
import { parseSpans } from '../../cli/trace-summary.js';
import { delay, systemClock } from '../../common/clock.js';
import { monotonicUs, type Span } from '../../common/trace.js';
import { nodeScript, ROOT } from '../lab/command.js';
import { TestCluster } from '../lab/test-cluster.js';
import type { Environment } from './inodes.js';

/** What is written behind has left the mount by then. */
const SETTLE_MS = 3000;
const WRITERS = 32;

/** Kinds of work that are counted, by what their spans look like. */
const KINDS: { name: string; counts: (span: Span) => boolean }[] = [
  { name: 'kernel requests', counts: ({ stage }) => stage === 'fuse' },
  {
    name: 'messages to the metaserver',
    counts: ({ stage, name }) => stage === 'wire' && name.startsWith('meta '),
  },
  { name: 'data requests', counts: ({ stage, name }) => stage === 'wire' && name.startsWith('data ') },
  { name: 'log entries', counts: ({ stage, name }) => stage === 'raft commit' && name === 'commit' },
  { name: 'log syncs (3 disks)', counts: ({ name }) => name === 'raft log datasync' },
  { name: 'segment syncs (3 disks)', counts: ({ name }) => name === 'segments datasync' },
];

interface Step {
  name: string;
  operations: number;
  from: number;
  to: number;
}

/**
 * What each kind of operation costs in requests, log entries and syncs, by the traces of a cluster: figures that do not
 * depend on how busy the machine is. A table on stdout, and in a file.
 */
export async function countsBench(environment: Environment, files: number, write: boolean): Promise<void> {
  const cluster = new TestCluster('bench-counts', ['--trace']);
  const traces = join(cluster.data, 'trace');
  let lines: string[];
  try {
    await cluster.up();
    await cluster.waitHealthy();
    const steps = await runSteps(cluster, traces, files);
    await cluster.down();
    lines = table(steps, traces);
  } finally {
    await cluster.destroy();
  }
  const text = [
    '# What each operation costs',
    '',
    'Requests, log entries and syncs for each operation, counted in the traces of a cluster of three metaservers and three',
    'chunkservers. They do not depend on how fast or how busy the machine is. Work that is left behind is in the row; beside it',
    'a leader that is idle syncs its log now and then.',
    '',
    `Commit ${environment.revision}.`,
    '',
    '```',
    `npm run bench -- --counts --files ${files}${write ? ' --write' : ''}`,
    '```',
    '',
    ...lines,
    '',
  ].join('\n');
  const file = join(ROOT, write ? 'docs/counts.md' : '.bench/counts.md');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  process.stdout.write(text);
}

async function runSteps(cluster: TestCluster, traces: string, files: number): Promise<Step[]> {
  const steps: Step[] = [];
  let mounts = 0;
  let mount = '';
  const anew = async (): Promise<void> => {
    if (mount) await cluster.umount(mount);
    mount = await cluster.mount(`counts-${mounts++}`, ['--trace', traces]);
  };
  const step = async (name: string, work: () => Promise<number>): Promise<void> => {
    const from = monotonicUs();
    const operations = await work();
    await delay(systemClock, SETTLE_MS);
    steps.push({ name, operations, from, to: monotonicUs() });
    console.error(`${name}: ${operations} operations`);
  };
  const phase = (name: string, phase: string, dir: string, count = files, writers = 1): Promise<void> =>
    step(name, async () => (await worker(phase, join(mount, dir), count, writers)).operations);
  await anew();
  await nodeScript(`for (const dir of ['f', 'd', 'c', 'w']) fs.mkdirSync(path.join(args[0], dir));`, [mount]);
  await phase('create + write 4 KiB + close', 'create', 'f');
  await phase('stat, warm', 'stat', 'f');
  await phase('open + read + close, warm', 'read', 'f');
  await anew();
  await phase('stat, cold', 'stat', 'f');
  await anew();
  await phase('open + read + close, cold', 'read', 'f');
  await anew();
  await step('ls -l of all, cold', async () => (await worker('list', join(mount, 'f'), 1)).operations);
  await phase('rename', 'rename', 'f');
  await phase('unlink', 'unlink', 'f');
  await phase('mkdir', 'mkdir', 'd');
  await phase('rmdir', 'rmdir', 'd');
  for (const writers of [1, WRITERS]) {
    await phase(`write 4 KiB + fsync, ${writers} at a time`, 'commit', 'w', 1, writers);
    await phase(
      `create + write + fsync of file and directory, ${writers} at a time`,
      'commit-create',
      'c',
      1,
      writers,
    );
    await nodeScript(`for (const n of fs.readdirSync(args[0])) fs.unlinkSync(path.join(args[0], n));`, [
      join(mount, 'c'),
    ]);
  }
  // Its trace is whole once it has ended.
  await cluster.umount(mount);
  return steps;
}

/** One row a step, each kind of work divided by the step's operations. */
function table(steps: readonly Step[], traces: string): string[] {
  const counted = steps.map(() => KINDS.map(() => 0));
  for (const name of readdirSync(traces)) {
    for (const span of parseSpans(readFileSync(join(traces, name), 'utf8'))) {
      if ('dropped' in span) throw new Error(`${name}: ${span.dropped} spans are missing: take fewer files`);
      const row = steps.findIndex(({ from, to }) => span.at >= from && span.at < to);
      if (row < 0) continue;
      for (const [column, { counts }] of KINDS.entries())
        if (counts(span)) (counted[row] as number[])[column] = ((counted[row] as number[])[column] ?? 0) + 1;
    }
  }
  return [
    `| operation | times | ${KINDS.map(({ name }) => name).join(' | ')} |`,
    `|${'---|'.repeat(KINDS.length + 2)}`,
    ...steps.map(({ name, operations }, row) => {
      const cells = (counted[row] as number[]).map((count) => (count / operations).toFixed(2));
      return `| ${[name, operations, ...cells].join(' | ')} |`;
    }),
  ];
}
