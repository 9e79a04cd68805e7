import type { LogLevel } from '../common/logger.js';
import type { Tracer } from '../common/trace.js';
import { parseAddress } from './cluster-options.js';
import { CliError } from './output.js';
import { type ProcessDeps, processDeps, serveUntilStopped, startError } from './serve.js';
import { startTracing } from './tracing.js';

/** What the commands that run one server in the foreground share: `holdfast metaserver`, `holdfast chunkserver`. */

export type ServerPart = 'metaserver' | 'chunkserver';

export interface ServerFlags {
  id: number;
  listen: string;
  dataDir: string;
  trace?: string;
  logLevel: LogLevel;
}

interface Server {
  close(): Promise<void>;
  /** Settles when it cannot go on. */
  fatal: Promise<Error | undefined>;
}

/**
 * Subcommands do without them, so that they are no required options for commander.
 *
 * @param required names of options by flag
 * @throws CliError
 */
export function requireFlags<Flags extends ServerFlags>(
  part: ServerPart,
  required: Partial<Record<keyof Flags, string>>,
  flags: Partial<Flags>,
): Flags {
  const options = Object.entries<string | undefined>(required);
  const names = options.map(([, option]) => `--${option}`);
  const needs = `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
  for (const [flag, option] of options) {
    if (flags[flag as keyof Flags] !== undefined) continue;
    throw new CliError(
      `required option '--${option}' is missing: it takes ${needs} to run a ${part} (see 'holdfast ${part} --help')`,
    );
  }
  return flags as Flags;
}

/** Starts a server and runs it until it is told to stop; sets the exit code. @throws CliError when it cannot start */
export async function runServer(
  part: ServerPart,
  { id, listen, trace, logLevel }: ServerFlags,
  start: (
    address: { host: string; port: number },
    deps: ProcessDeps & { tracer?: Tracer },
  ) => Promise<Server>,
): Promise<void> {
  const address = parseAddress(listen, '--listen');
  const deps = processDeps({ part, id }, logLevel);
  const tracing = await startTracing(trace, `${part}-${id}`, deps);
  const server = await start(address, { ...deps, tracer: tracing.tracer }).catch((error: unknown) => {
    throw startError(`${part} ${id} on ${listen}`, error);
  });
  const close = () => server.close().finally(() => tracing.close());
  process.exitCode = await serveUntilStopped({ close, ended: server.fatal }, deps);
}
