import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../lab/command.js';
import { ONE_OF_EACH, TestCluster } from '../lab/test-cluster.js';

/** One of so many of the cases that there are thousands of; 1 makes all (some 20,000 lines; minutes on a mount). */
const PART = process.env.HOLDFAST_MATRIX_PART ?? '40';
const TIMEOUT_MS = process.env.HOLDFAST_MATRIX_PART ? 1_800_000 : 180_000;
const MATRIX = join(ROOT, 'tests', 'posix', 'matrix', 'matrix.py');

/** Lines that may differ, and why. */
const MAY_DIFFER: readonly RegExp[] = [
  // A temporary file in a directory that is gone: ext4 says EPERM, Linux' other calls ENOENT.
  /^working_directory_that_is_gone: {2}tmpfile/,
];

/** What inotify tells: another mount's changes are none of this kernel. */
const OF_THIS_KERNEL = /^leases_and_watches: {2}event: /;

/**
 * @param elsewhere the same directory on another mount, where it is prepared and looked at
 * @returns its output as lines, each behind the name of its case
 */
function matrix(dir: string, elsewhere?: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = spawn('python3', [MATRIX, dir], {
      cwd: '/',
      env: {
        ...process.env,
        ...{ HOLDFAST_MATRIX_PART: PART, PYTHONDONTWRITEBYTECODE: '1', LC_ALL: 'C.UTF-8' },
        ...(elsewhere && { HOLDFAST_MATRIX_ELSEWHERE: elsewhere }),
      },
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => {
      stdout += String(chunk);
    });
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code !== 0) return reject(new Error(`ended with ${code}: ${stderr}${stdout.slice(-2000)}`));
      let title = '';
      resolve(
        stdout.split('\n').flatMap((line) => {
          const named = `${title}:${line}`;
          if (line.startsWith('  ')) return MAY_DIFFER.some((pattern) => pattern.test(named)) ? [] : [named];
          title = line;
          return [];
        }),
      );
    });
  });
}

function workDirectory(inside: string, name = 'matrix'): string {
  const dir = join(inside, name);
  mkdirSync(dir);
  chmodSync(dir, 0o755);
  return dir;
}

// Every call on every kind of entry by several users: what the two file systems say is compared line by line.
describe('the matrix of calls', function () {
  this.timeout(TIMEOUT_MS * 2);
  const cluster = new TestCluster('matrix', ONE_OF_EACH);
  let local = '';
  let expected: string[] = [];
  before(async function () {
    if (process.getuid?.() !== 0) return this.skip();
    local = mkdtempSync(join(tmpdir(), 'holdfast-matrix-'));
    chmodSync(local, 0o755);
    await cluster.up();
    chmodSync(cluster.root, 0o755);
  });
  after(async () => {
    await cluster.destroy();
    if (local) await rm(local, { recursive: true, force: true });
  });

  it('is on a mount what it is on a local file system', async () => {
    expected = await matrix(workDirectory(local));
    assert.ok(expected.length > 500, `${expected.length} lines`);
    assert.deepEqual(
      expected.filter((line) => line.includes('broke off')),
      [],
    );
    assert.deepEqual(await matrix(workDirectory(cluster.dir)), expected);
  });

  it('is the same where everything is prepared, and looked at, on another mount', async () => {
    const second = await cluster.mount('second');
    const here = workDirectory(cluster.dir, 'two');
    const ofAll = (lines: string[]): string[] => lines.filter((line) => !OF_THIS_KERNEL.test(line));
    assert.deepEqual(ofAll(await matrix(here, join(second, 'two'))), ofAll(expected));
  });
});
