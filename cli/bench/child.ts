import { execFile } from 'node:child_process';

export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  cwd?: string;
  /** The command is killed after so long, and reported as failed. */
  timeoutMs: number;
  env?: NodeJS.ProcessEnv;
}

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** How much of a failed command's output its error quotes, characters. */
const QUOTED_MAX = 2000;

/** Runs a command; never throws for its exit code. A command that outlives its time is killed and reported as such. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<CommandResult> {
  const { cwd = '/', timeoutMs, env } = options;
  return new Promise((resolve) => {
    const child = execFile(
      command,
      args,
      {
        cwd,
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: OUTPUT_BYTES_MAX,
        env: { ...process.env, LC_ALL: 'C.UTF-8', ...env },
      },
      (error, stdout, stderr) => {
        const killed = child.killed ? `\n(killed after ${timeoutMs} ms)` : '';
        const notRun = error && child.exitCode === null && !child.killed ? `\n${error.message}` : '';
        resolve({ code: error ? (child.exitCode ?? 255) : 0, stdout, stderr: `${stderr}${notRun}${killed}` });
      },
    );
  });
}

/** Runs a shell script with `set -e`. @throws Error with its output when it fails */
export async function sh(script: string, options: RunOptions): Promise<string> {
  const result = await run('bash', ['-c', `set -eo pipefail\n${script}`], options);
  if (result.code !== 0) {
    const { code, stdout, stderr } = result;
    const output = `--- stdout\n${stdout.slice(-QUOTED_MAX)}\n--- stderr\n${stderr.slice(-QUOTED_MAX)}`;
    throw new Error(`shell failed with ${code}:\n${script}\n${output}`);
  }
  return result.stdout;
}
