import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { SYSCALLS_PERL } from './syscalls.js';

export interface ShellResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

const SHELL_TIMEOUT_MS = 20_000;
/** `sys` runs one system call that no standard tool makes; see syscalls.ts. */
const PRELUDE = 'sys() { perl -e "$SYSCALLS_PERL" -- "$@"; }\n';

/** Runs a shell script in a directory. Killed after 20 s, with its children. Output is latin1: bytes stay apart. */
export function runShell(cwd: string, script: string): Promise<ShellResult> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', PRELUDE + script], {
      // The directory is entered by the child: this process stays away from the mount.
      cwd: '/',
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC', DIR: cwd, SYSCALLS_PERL },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const timer = setTimeout(() => {
      if (child.pid) process.kill(-child.pid, 'SIGKILL');
      child.stdout.destroy();
      child.stderr.destroy();
      reject(new Error(`the script did not end in ${SHELL_TIMEOUT_MS} ms:\n${script}`));
    }, SHELL_TIMEOUT_MS);
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('latin1');
      resolve({ code, stdout: text(out), stderr: text(err) });
    });
  });
}

/** Runs a script inside `dir`; every command must succeed. @returns what it printed, without the last newline */
export async function sh(dir: string, script: string): Promise<string> {
  const result = await runShell(dir, `set -e\ncd "$DIR"\n${script}`);
  assert.equal(result.code, 0, `exit ${result.code}: ${result.stderr}\n${result.stdout}\n--- of:\n${script}`);
  return result.stdout.replace(/\n$/, '');
}
