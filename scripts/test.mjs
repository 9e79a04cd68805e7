// npm test: lint, then every test of the built tree, then one line `N passed, N failed` for machines to read.
// Arguments go to mocha: `npm test -- --grep rename`.
import { spawn, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const bin = (name) => join(ROOT, 'node_modules', '.bin', name);

const lint = spawnSync(bin('biome'), ['ci', '--colors=off', '--error-on-warnings', '.'], {
  cwd: ROOT,
  stdio: 'inherit',
});

const args = process.argv.slice(2);
const specs = args.some((arg) => arg.endsWith('.js')) ? [] : ['dist/tests/**/*.test.js'];
const mocha = spawn(bin('mocha'), ['--no-color', ...specs, ...args], {
  cwd: ROOT,
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, UV_THREADPOOL_SIZE: '16', NO_COLOR: '1' },
});
let tail = '';
mocha.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  tail += chunk;
  if (tail.length > 4_000_000) tail = tail.slice(-2_000_000);
});
mocha.on('close', (code) => {
  const count = (word) =>
    Number([...tail.matchAll(new RegExp(`^\\s+(\\d+) ${word}\\b`, 'gm'))].at(-1)?.[1] ?? 0);
  const passed = count('passing');
  let failed = count('failing');
  if (lint.status !== 0) {
    console.log('lint failed');
    failed += 1;
  }
  if (code !== 0 && failed === 0) failed = 1; // mocha itself broke
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 || passed === 0 ? 1 : 0);
});
