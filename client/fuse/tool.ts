import { spawn } from 'node:child_process';
import type { Clock } from '../../common/clock.js';

/** How a system tool ended. */
export interface ToolResult {
  /** Its exit code; null when it was killed, was not found, or did not end in time. */
  code: number | null;
  stderr: string;
  timedOut: boolean;
}

/** Of what a tool says, so much is kept. */
const STDERR_MAX_CHARS = 4096;

/**
 * Runs mount(8), umount(8) and the like. Never rejects. After the time-out the tool is killed and no longer waited
 * for: one that waits in the kernel for a FUSE request may not end before the request does.
 * @param inheritFd a descriptor of this process that the tool gets as its descriptor 3
 */
export function runTool(
  clock: Clock,
  command: string,
  args: readonly string[],
  timeoutMs: number,
  inheritFd?: number,
): Promise<ToolResult> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: inheritFd === undefined ? ['ignore', 'ignore', 'pipe'] : ['ignore', 'ignore', 'pipe', inheritFd],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let stderr = '';
    const timer = clock.after(timeoutMs, () => {
      child.kill('SIGKILL');
      child.stderr?.destroy();
      child.unref();
      resolve({ code: null, stderr, timedOut: true });
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      if (stderr.length < STDERR_MAX_CHARS) stderr += chunk.toString('utf8');
    });
    child.on('error', (error) => {
      timer.cancel();
      resolve({ code: null, stderr: stderr || `${command}: ${error.message}`, timedOut: false });
    });
    child.on('close', (code) => {
      timer.cancel();
      resolve({ code, stderr, timedOut: false });
    });
  });
}
