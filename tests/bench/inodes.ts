import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { StatusReader } from '../../cli/cluster-status.js';
import { processFlags } from '../../cli/process-flags.js';
import { systemClock } from '../../common/clock.js';
import { encodeInode, type Inode } from '../../metaserver/namespace/inode-codec.js';
import { COUNTERS_KEY, cookieKey, dentryKey, inodeKey } from '../../metaserver/namespace/keys.js';
import {
  type Counters,
  decodeCounters,
  encodeCookieEntry,
  encodeCounters,
  encodeDentry,
} from '../../metaserver/namespace/records.js';
import type { KvTransaction } from '../../metaserver/store/kv.js';
import { LmdbKv } from '../../metaserver/store/lmdb-kv.js';
import { DEFAULT_CHUNK_SIZE_BYTES, ROOT_INO, S_IFDIR, S_IFREG } from '../../proto/types.js';
import { ROOT } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { anonymousMib } from '../lab/processes.js';
import { indexFigures } from './index-size.js';

const MAIN = join(ROOT, 'dist', 'cli', 'main.js');
const PORT = 21_990;
const FILES_PER_DIRECTORY = 1000;
const START_TIMEOUT_MS = 1_800_000;
const STATUS_TIMEOUT_MS = 1000;
const STOP_TIMEOUT_MS = 120_000;
const PROGRESS_INODES = 1_000_000;
/** What the product promises, for 20 million inodes. */
const GOAL_MIB = 400;
const GOAL_START_S = 5;
const MIB = 2 ** 20;

export interface Environment {
  machine: string;
  revision: string;
}

/** Memory and start of a metaserver with `inodes` files, and of a chunkserver's index for `indexGb` of data; a table on stdout. */
export async function inodesBench(environment: Environment, inodes: number, indexGb: number): Promise<void> {
  const dir = temporaryDirectory('bench-inodes');
  try {
    const lines = [
      `Machine: ${environment.machine}. Commit ${environment.revision}.`,
      '',
      '| what | measured | goal |',
      '|---|---|---|',
      ...(await metaserverLines(dir, inodes)),
      ...(await indexFigures(dir, indexGb)),
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function metaserverLines(dir: string, inodes: number): Promise<string[]> {
  const server = new LoneMetaserver(join(dir, 'meta'));
  await server.start();
  const empty = server.memoryMib();
  await server.stop('SIGTERM');
  await fill(server.stateFile, inodes);
  const bytes = statSync(server.stateFile).size;
  const clean = await server.start();
  const full = server.memoryMib();
  await server.stop('SIGKILL');
  const crashed = await server.start();
  const after = server.memoryMib();
  await server.stop('SIGTERM');
  const what = `metaserver, ${inodes.toLocaleString('en-US')} inodes`;
  const seconds = (value: number): string => `${value.toFixed(1)} s`;
  return [
    `| ${what}: file of the state | ${Math.round(bytes / MIB)} MiB, ${Math.round(bytes / inodes)} bytes an inode | |`,
    `| ${what}: resident without page cache | ${full.toFixed(0)} MiB (empty: ${empty.toFixed(0)} MiB; behind a crash: ${after.toFixed(0)} MiB) | ${GOAL_MIB} MiB |`,
    `| ${what}: start after a clean end | ${seconds(clean)} | ${GOAL_START_S} s |`,
    `| ${what}: start after kill -9 (a large state is read behind it) | ${seconds(crashed)} | ${GOAL_START_S} s |`,
  ];
}

/** One metaserver that is a cluster by itself. */
class LoneMetaserver {
  readonly #dir: string;
  readonly #clusterId = randomUUID();
  readonly #address = `127.0.0.1:${PORT}`;
  #child: ChildProcess | undefined;

  constructor(dir: string) {
    this.#dir = dir;
  }

  get stateFile(): string {
    return join(this.#dir, 'state.mdb');
  }

  /** @returns seconds until it leads and answers */
  async start(): Promise<number> {
    const begun = systemClock.now();
    const flags = ['--id', '1', '--listen', this.#address, '--data-dir', this.#dir];
    const cluster = ['--cluster-id', this.#clusterId, '--peers', `1=${this.#address}`];
    const init = ['--replicas', '1', '--min-in-sync', '1', '--chunkservers', '1'];
    const args = [...processFlags('metaserver'), MAIN, 'metaserver', ...flags, ...cluster, ...init];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    this.#child = child;
    const reader = new StatusReader([this.#address], 0);
    try {
      await eventually(
        'the metaserver leads',
        async () => {
          if (child.exitCode !== null) throw new Error(`the metaserver ended with ${child.exitCode}`);
          return Boolean((await reader.read(STATUS_TIMEOUT_MS))?.leader);
        },
        START_TIMEOUT_MS,
      );
    } finally {
      reader.close();
    }
    return (systemClock.now() - begun) / 1000;
  }

  memoryMib(): number {
    return anonymousMib(this.#child?.pid ?? 0);
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    child?.kill(signal);
    await eventually(
      'the metaserver ends',
      () => child === undefined || child.exitCode !== null || child.signalCode !== null,
      STOP_TIMEOUT_MS,
    );
  }
}

/** Adds files, a thousand to a directory, as the state machine would have them. */
async function fill(file: string, inodes: number): Promise<void> {
  const kv = LmdbKv.open(file);
  try {
    const counters = decodeCounters(kv.get(COUNTERS_KEY) as Buffer);
    const target = counters.inodes + inodes;
    let told = 0;
    while (counters.inodes < target) {
      await kv.behind();
      const files = Math.min(FILES_PER_DIRECTORY, target - counters.inodes - 1);
      kv.transaction((txn) => {
        addDirectory(txn, counters, files);
        txn.put(COUNTERS_KEY, encodeCounters(counters));
      });
      if (counters.inodes - told < PROGRESS_INODES) continue;
      told = counters.inodes;
      console.error(`${told.toLocaleString('en-US')} of ${target.toLocaleString('en-US')} inodes`);
    }
    await kv.flushed();
  } finally {
    await kv.close();
  }
}

function addDirectory(txn: KvTransaction, counters: Counters, files: number): void {
  const directory = counters.nextIno;
  const name = (kind: string, ino: number): Buffer => Buffer.from(`${kind}-${ino}`);
  addInode(txn, counters, ROOT_INO, name('directory', directory), S_IFDIR | 0o755, files);
  for (let i = 0; i < files; i++)
    addInode(txn, counters, directory, name('some-file-name', counters.nextIno), S_IFREG | 0o644, 0);
}

function addInode(
  txn: KvTransaction,
  counters: Counters,
  parent: number,
  name: Buffer,
  mode: number,
  entries: number,
): void {
  const ino = counters.nextIno++;
  const cookie = counters.nextCookie++;
  counters.inodes++;
  const time = { sec: 1_700_000_000 + (ino % 1_000_000), nsec: ino % 1_000_000_000 };
  const isFile = entries === 0;
  const inode: Inode = {
    ...{ ino, generation: 1, mode, nlink: isFile ? 1 : 2, uid: 1000, gid: 1000, rdev: 0 },
    ...{ size: isFile ? 20_000 : 0, allocated: isFile ? 20_480 : 0, atime: time, mtime: time, ctime: time },
    ...{ chunkSize: DEFAULT_CHUNK_SIZE_BYTES, truncateSeq: 0, truncates: [], change: 3 },
    ...{
      parent: isFile ? 0 : parent,
      entries,
      xattrBytes: 0,
      xattrKinds: 0,
      unnamed: false,
      project: 0,
      flags: 0,
    },
    birth: time,
  };
  const type = mode >> 12;
  txn.put(inodeKey(ino), encodeInode(inode));
  txn.put(dentryKey(parent, name), encodeDentry({ ino, type, cookie }));
  txn.put(cookieKey(parent, cookie), encodeCookieEntry(ino, type, name));
}
