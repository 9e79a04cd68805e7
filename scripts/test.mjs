// npm test: lint, then every test of the built tree, then one line `N passed, N failed` for machines to read.
// Arguments go to mocha: `npm test -- --grep rename`.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { detachMounts, endProcesses, RUN_VARIABLE } from './run-end.mjs';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Twice what a run takes. One that hangs must still say so, and leave nothing behind. */
const LIMIT_MINUTES = 18;
const bin = (name) => join(ROOT, 'node_modules', '.bin', name);

const lint = spawnSync(bin('biome'), ['ci', '--colors=off', '--error-on-warnings', '.'], {
  cwd: ROOT,
  stdio: 'inherit',
});

/**
 * Two files at a time beside the seeds of the simulation, whose processes have a low priority and take what the others
 * leave of two cores.
 */
const JOBS = 3;
/** What takes longest begins first, so that no job is left alone with it at the end. */
const LONGEST_FIRST = [
  'dist/tests/sim/simulation.test.js',
  ...['tools', 'fuse-native', 'failover', 'wiped-disk', 'coherence'].map(
    (name) => `dist/tests/cluster/${name}.test.js`,
  ),
  ...['dist/tests/cluster/', 'dist/tests/sim/', 'dist/tests/model/', 'dist/tests/posix/'],
];

function testFiles() {
  const files = readdirSync(join(ROOT, 'dist', 'tests'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.js'))
    .map((entry) => relative(ROOT, join(entry.path, entry.name)));
  const rank = (file) => {
    const at = LONGEST_FIRST.findIndex((directory) => file.startsWith(directory));
    return at < 0 ? LONGEST_FIRST.length : at;
  };
  return files.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

const args = process.argv.slice(2);
const specs = args.some((arg) => arg.endsWith('.js')) ? [] : testFiles();
const run = `${process.pid}-${Date.now()}`;
const mocha = spawn(bin('mocha'), ['--no-color', '--parallel', '--jobs', String(JOBS), ...specs, ...args], {
  cwd: ROOT,
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, UV_THREADPOOL_SIZE: '16', NO_COLOR: '1', [RUN_VARIABLE]: run },
});
let hung = false;
const limit = setTimeout(() => {
  hung = true;
  const commands = endProcesses(run).map((command) => command.split('\n', 1)[0]);
  const left = new Set([...detachMounts(), ...commands]);
  console.log(`\nended: the tests were not through after ${LIMIT_MINUTES} minutes. Still there:`);
  for (const line of left) console.log(`  ${line}`);
}, LIMIT_MINUTES * 60_000);
let tail = '';
mocha.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  tail += chunk;
  if (tail.length > 4_000_000) tail = tail.slice(-2_000_000);
});
mocha.on('close', (code) => {
  clearTimeout(limit);
  const count = (word) =>
    Number([...tail.matchAll(new RegExp(`^\\s+(\\d+) ${word}\\b`, 'gm'))].at(-1)?.[1] ?? 0);
  const passed = hung ? (tail.match(/^\s+✔ /gm) ?? []).length : count('passing');
  let failed = count('failing');
  if (lint.status !== 0) {
    console.log('lint failed');
    failed += 1;
  }
  if (code !== 0 && failed === 0) failed = 1; // mocha itself broke
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 || passed === 0 ? 1 : 0);
});
