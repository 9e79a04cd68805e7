import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type CommandResult,
  type RunOptions,
  run as runChild,
  sh as runShell,
} from '../../cli/bench/child.js';

/** Commands in processes of their own: a test process that touched a mount which it serves would hang. */

export type { CommandResult };

/** Built to dist/tests/lab/. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
/** The built `holdfast`. */
export const MAIN = join(ROOT, 'dist', 'cli', 'main.js');
/** What every server and mount of the tests is started with. */
export const ENVIRONMENT = { UV_THREADPOOL_SIZE: '16', LC_ALL: 'C.UTF-8' };
const COMMAND_TIMEOUT_MS = 280_000;

type ChildOptions = Partial<RunOptions>;

const withDefaults = (options: ChildOptions): RunOptions => ({
  cwd: ROOT,
  timeoutMs: COMMAND_TIMEOUT_MS,
  ...options,
  env: { ...ENVIRONMENT, ...options.env },
});

/** Runs a command; never throws for its exit code. A command that outlives the time is killed and reported as such. */
export function run(command: string, args: string[], options: ChildOptions = {}): Promise<CommandResult> {
  return runChild(command, args, withDefaults(options));
}

/** Runs a shell script with `set -e`. @throws Error with its output when it fails */
export function sh(script: string, options: ChildOptions = {}): Promise<string> {
  return runShell(script, withDefaults(options));
}

/** Runs JavaScript in a child process: `fs` and `path` are there, `args` are its arguments. */
export async function nodeScript(
  code: string,
  args: string[] = [],
  timeoutMs = COMMAND_TIMEOUT_MS,
): Promise<string> {
  const prelude =
    "const fs = require('node:fs'); const path = require('node:path'); const args = process.argv.slice(1);\n";
  const result = await run(
    process.execPath,
    [
      '-e',
      `${prelude}(async () => {${code}\n})().catch((e) => { console.error(e); process.exit(1); });`,
      ...args,
    ],
    { timeoutMs, cwd: '/' },
  );
  if (result.code !== 0) throw new Error(`node script failed: ${result.stderr.slice(-2000)}`);
  return result.stdout;
}

/** The holdfast command. */
export function holdfast(
  args: string[],
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<CommandResult> {
  return run(process.execPath, [MAIN, ...args], options);
}
