import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { constants, setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '../../proto/errors.js';

/** How verify-process.ts ends; with anything else it did not look. */
export const EXIT_SOUND = 0;
export const EXIT_DAMAGED = 3;
const PROCESS = fileURLToPath(new URL('./verify-process.js', import.meta.url));
/** What is kept of what the process says. */
const OUTPUT_MAX_CHARS = 4096;
/** Signals by which damaged pages end their reader; any other was sent by somebody. */
const DAMAGE_SIGNALS: ReadonlySet<string> = new Set(['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGFPE', 'SIGILL']);

export interface VerifyOptions {
  /**
   * Somebody writes to the store meanwhile: it is read piece by piece, so that no page is kept from being used again for long,
   * and at a low priority. Records that are missing without a trace are not noticed then.
   */
  inUse?: boolean;
  /** Ends it early; the promise is rejected then. */
  signal?: AbortSignal;
}

/** Bytes of the store file `path`; 0 when there is none. */
export async function storeBytes(path: string): Promise<number> {
  return stat(path).then(
    (stats) => stats.size,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return 0;
      throw error;
    },
  );
}

/**
 * Reads everything in the store file `path` and compares it with its checksums: in a process of its own, which damaged pages may
 * end. About 5 us a record. A missing or empty file is sound. Unless `inUse` is set, nobody may have it open for writing.
 * @throws HoldfastError CORRUPT when it is damaged, or another error when it could not be looked at
 */
export async function verifyStoreFile(path: string, options: VerifyOptions = {}): Promise<void> {
  if ((await storeBytes(path)) === 0) return;
  const { code, signal, output } = await run(path, options);
  options.signal?.throwIfAborted();
  if (code === EXIT_SOUND) return;
  const told = output.trim();
  if (signal !== null && DAMAGE_SIGNALS.has(signal)) {
    throw new HoldfastError('CORRUPT', `reading the store ${path} ends in ${signal} ${told}`.trim());
  }
  if (code === EXIT_DAMAGED) throw new HoldfastError('CORRUPT', told);
  throw new Error(`the store ${path} could not be verified: ${told || signal || `exit code ${code}`}`);
}

function run(
  path: string,
  { inUse = false, signal: abort }: VerifyOptions,
): Promise<{ code: number | null; signal: string | null; output: string }> {
  return new Promise((resolve, reject) => {
    abort?.throwIfAborted();
    const user = inUse ? [String(process.pid)] : [];
    const child = spawn(process.execPath, [...process.execArgv, PROCESS, path, ...user], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    if (inUse && child.pid !== undefined) setPriority(child.pid, constants.priority.PRIORITY_LOW);
    const end = (): void => void child.kill('SIGKILL');
    abort?.addEventListener('abort', end, { once: true });
    child.once('close', () => abort?.removeEventListener('abort', end));
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        if (output.length < OUTPUT_MAX_CHARS) output += String(chunk);
      });
    }
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, output }));
  });
}
