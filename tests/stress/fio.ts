import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Prng } from '../../common/prng.js';
import { run } from '../lab/command.js';

/** The load: fio jobs whose every block carries a checksum of its own, read back and verified later. */

/** One job. Sizes and rates are for one second of load; a round multiplies them. */
interface JobKind {
  name: string;
  /** Bytes a second that it wants to write. */
  rate: number;
  options: readonly string[];
  /** Spread over so many files. */
  files?: number;
  /** So many processes, a file each. */
  jobs?: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_UNIT_BYTES = MIB;
const FILE_UNIT_BYTES = 16 * KIB;

/** Every kind of access of a program that the file system must bring through a failure. */
export const JOB_KINDS: readonly JobKind[] = [
  { name: 'sequential', rate: 1.5 * MIB, options: ['rw=write', 'bs=1m'] },
  { name: 'random', rate: 512 * KIB, options: ['rw=randwrite', 'bs=4k'] },
  { name: 'mixed-sizes', rate: MIB, options: ['rw=randwrite', 'bssplit=4k/50:64k/30:256k/20'] },
  { name: 'many-files', rate: 512 * KIB, files: 100, options: ['rw=write', 'bs=4k', 'openfiles=16'] },
  { name: 'synced', rate: 64 * KIB, options: ['rw=write', 'bs=4k', 'fsync=1'] },
  { name: 'direct', rate: 512 * KIB, options: ['rw=randwrite', 'bs=16k', 'direct=1'] },
  { name: 'several-jobs', rate: 256 * KIB, jobs: 2, options: ['rw=randwrite', 'bs=8k'] },
  // Reads back what it wrote while it writes.
  {
    name: 'read-back',
    rate: 256 * KIB,
    options: ['rw=randwrite', 'bs=4k', 'verify_backlog=128', 'do_verify=1'],
  },
];

/** A load of one mount: written once, verified as often as wanted, from whatever mount. */
export interface Load {
  name: string;
  seconds: number;
  seed: number;
}

export interface FioResult {
  operations: number;
  bytesWritten: number;
  bytesVerified: number;
  errors: string[];
  /** The slowest single operation. */
  longestMs: number;
}

/** A point of fio's logs: milliseconds since 1970. */
export interface LogPoint {
  atMs: number;
  value: number;
}

const GRACE_MS = 240_000;
const LOG_INTERVAL_MS = 500;

export function newLoad(name: string, seconds: number, prng: Prng): Load {
  return { name, seconds, seed: 1 + prng.int(2 ** 31 - 2) };
}

/** Writes a load into `dir`, spread over its seconds; logs go to `logDir`. */
export async function writeLoad(dir: string, load: Load, logDir: string): Promise<FioResult> {
  mkdirSync(join(logDir, load.name), { recursive: true });
  const logs = join(logDir, load.name, 'log');
  const extra = [
    ...['end_fsync=1', `write_bw_log=${logs}`, `write_lat_log=${logs}`],
    ...[`log_avg_msec=${LOG_INTERVAL_MS}`, 'log_unix_epoch=1'],
  ];
  return fio(join(dir, load.name), load, logDir, 'write', extra);
}

/** Reads a load back and compares every block with its checksum. */
export function verifyLoad(dir: string, load: Load, logDir: string): Promise<FioResult> {
  return fio(join(dir, load.name), load, logDir, 'verify', ['verify_only=1']);
}

async function fio(
  dir: string,
  load: Load,
  logDir: string,
  mode: 'write' | 'verify',
  extra: string[],
): Promise<FioResult> {
  const file = join(logDir, `${load.name}.${mode}.fio`);
  writeFileSync(file, jobFile(dir, load, mode, extra));
  const script = `mkdir -p ${dir} && cd ${logDir} && exec fio --output-format=json ${file}`;
  const result = await run('bash', ['-c', script], { timeoutMs: load.seconds * 1000 + GRACE_MS });
  return parseFio(result.code, result.stdout, result.stderr);
}

export function jobFile(dir: string, load: Load, mode: 'write' | 'verify', extra: string[]): string {
  const lines = [
    ...['[global]', `directory=${dir}`, 'ioengine=psync', 'fallocate=none', 'group_reporting=0'],
    ...[
      'verify=crc32c',
      'verify_fatal=1',
      'verify_state_save=0',
      `do_verify=${mode === 'verify' ? 1 : 0}`,
      `randseed=${load.seed}`,
      ...extra,
    ],
  ];
  for (const kind of JOB_KINDS) {
    const parts = (kind.files ?? 1) * (kind.jobs ?? 1);
    const unit = kind.files ? FILE_UNIT_BYTES : SIZE_UNIT_BYTES;
    // fio reads a file whose size is no multiple of its blocks as damaged.
    const size = Math.max(unit, Math.floor((kind.rate * load.seconds) / parts / unit) * unit);
    lines.push('', `[${kind.name}]`, ...kind.options);
    if (kind.files) lines.push(`nrfiles=${kind.files}`, `filesize=${size}`);
    else lines.push(`size=${size}`, `numjobs=${kind.jobs ?? 1}`);
    if (mode === 'write') lines.push(`rate=${Math.floor(kind.rate / (kind.jobs ?? 1))}`);
  }
  return `${lines.join('\n')}\n`;
}

interface FioJson {
  jobs: {
    jobname: string;
    error: number;
    write: { total_ios: number; io_bytes: number; lat_ns: { max: number } };
    read: { total_ios: number; io_bytes: number; lat_ns: { max: number } };
    sync: { total_ios?: number; lat_ns?: { max: number } };
  }[];
}

/** fio puts what failed before its JSON. */
export function parseFio(code: number, stdout: string, stderr: string): FioResult {
  const result: FioResult = { operations: 0, bytesWritten: 0, bytesVerified: 0, errors: [], longestMs: 0 };
  const json = Math.max(0, stdout.search(/^\{/m));
  const said = `${stdout.slice(0, json)}${stderr}`.trim().split('\n').slice(0, 5).join('; ');
  if (code !== 0) result.errors.push(`fio ended with ${code}: ${said}`);
  let parsed: FioJson;
  try {
    parsed = JSON.parse(stdout.slice(json)) as FioJson;
  } catch {
    result.errors.push(`fio said nothing readable: ${stdout.slice(0, 200)}`);
    return result;
  }
  for (const { jobname, error, write, read, sync } of parsed.jobs) {
    result.operations += write.total_ios + read.total_ios + (sync.total_ios ?? 0);
    result.bytesWritten += write.io_bytes;
    result.bytesVerified += read.io_bytes;
    const slowest = Math.max(write.lat_ns.max, read.lat_ns.max, sync.lat_ns?.max ?? 0) / 1e6;
    result.longestMs = Math.max(result.longestMs, slowest);
    if (error !== 0) result.errors.push(`${jobname}: error ${error}: ${said}`);
  }
  return result;
}

/** All points of one kind of a load's logs: 'bw' in KiB/s, 'lat' in ns, averages of LOG_INTERVAL_MS each. */
export function readLogs(logDir: string, load: Load, kind: 'bw' | 'lat'): LogPoint[] {
  const dir = join(logDir, load.name);
  return readdirSync(dir)
    .filter((name) => name.startsWith(`log_${kind}.`))
    .flatMap((name) =>
      readFileSync(join(dir, name), 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(',').map(Number))
        .map(([atMs, value]) => ({ atMs: atMs ?? 0, value: value ?? 0 })),
    );
}
