import { resolve } from 'node:path';
import { Option } from 'commander';
import { nodeDisk } from '../common/disk.js';
import { Tracer } from '../common/trace.js';
import { TRACE_FILE_MAX_BYTES, TraceFile } from '../common/trace-file.js';
import { CliError, oneLine } from './output.js';
import type { ProcessDeps } from './serve.js';

/** Below the data directory of `holdfast up --trace`. */
export const TRACE_DIR = 'trace';

/** The option --trace of a single process. */
export function traceOption(): Option {
  const mib = (2 * TRACE_FILE_MAX_BYTES) / 2 ** 20;
  return new Option(
    '--trace <dir>',
    `note where the time of each request goes in DIR/NAME.jsonl (at most ${mib} MiB); read it with 'holdfast trace DIR'`,
  );
}

/** What a process hands its part when it traces, and how it ends. */
export interface Tracing {
  tracer?: Tracer;
  /** Writes the rest. */
  close(): Promise<void>;
}

/** @param dir of --trace; undefined: nothing is traced. @throws CliError when no file can be made there */
export async function startTracing(
  dir: string | undefined,
  name: string,
  { clock, log, prng }: ProcessDeps,
): Promise<Tracing> {
  if (dir === undefined) return { close: () => Promise.resolve() };
  try {
    const file = await TraceFile.open(resolve(dir), name, { disk: nodeDisk, clock, log });
    return { tracer: new Tracer(file, prng), close: () => file.close() };
  } catch (error) {
    throw new CliError(`--trace ${dir}: ${oneLine(error)}: name a directory that can be written`);
  }
}
