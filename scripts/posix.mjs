// npm run posix -- DIR: the POSIX suite on any directory, as root; other arguments go to mocha.
import { spawn } from 'node:child_process';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const [dir, ...args] = process.argv.slice(2);
if (dir === undefined) {
  console.error('usage: npm run posix -- DIR [mocha arguments]');
  process.exit(2);
}
const mocha = spawn(
  join(ROOT, 'node_modules', '.bin', 'mocha'),
  ['dist/tests/posix/posix-local.test.js', ...args],
  { cwd: ROOT, stdio: 'inherit', env: { ...process.env, HOLDFAST_POSIX_DIR: resolve(dir) } },
);
mocha.on('close', (code) => process.exit(code ?? 1));
