import { Option } from 'commander';
import { type Clock, systemClock } from '../common/clock.js';
import { createLogger, LOG_LEVELS, type Logger, type LogLevel } from '../common/logger.js';
import { type Prng, systemPrng } from '../common/prng.js';
import { parseChoice } from './cluster-options.js';
import { CliError, EXIT_FAILED, oneLine, printLine } from './output.js';

/** What every long-running process gets handed in. */
export interface ProcessDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
}

/** The option --log-level of a single process. */
export function logLevelOption(): Option {
  return new Option('--log-level <level>', LOG_LEVELS.join(', '))
    .argParser(parseChoice('--log-level', LOG_LEVELS))
    .default('info' satisfies LogLevel);
}

/** A running server or mount. */
export interface Running {
  close(): Promise<void>;
  /** Settles when it cannot go on; undefined: it ended as it should. */
  ended: Promise<Error | undefined>;
}

/** Clock, chance and log of a process of its own, which from now on ends at once when it fails. */
export function processDeps(base: object, level: LogLevel): ProcessDeps {
  const log = createLogger(base, level);
  endOnFailure(log);
  return { clock: systemClock, log, prng: systemPrng() };
}

/**
 * Ends the process at once when an assertion fails or an error is not handled. Node's own way out waits for the threads of
 * its pool, and in a mount one of them always waits for the kernel: it would stay, and hang, for ever.
 */
function endOnFailure(log: Logger): void {
  process.on('uncaughtException', (error: unknown) => {
    log.error({ err: error }, 'fatal: a failure in the program itself');
    process.kill(process.pid, 'SIGKILL');
  });
}

/** A close that takes longer than this is given up; the process ends anyway. */
const CLOSE_TIMEOUT_MS = 15_000;

/**
 * Runs until SIGINT or SIGTERM, the end of a supervisor, or a fatal error; then closes in order.
 * @returns the exit code
 */
export async function serveUntilStopped(running: Running, deps: ProcessDeps): Promise<number> {
  const { log, clock } = deps;
  const reason = await new Promise<string | Error | undefined>((resolve) => {
    process.once('SIGINT', () => resolve('SIGINT'));
    process.once('SIGTERM', () => resolve('SIGTERM'));
    // Started by `holdfast up`: standard input ends when the supervisor has died, however it died.
    if (process.env.HOLDFAST_SUPERVISED === '1') {
      process.stdin.on('end', () => resolve('the supervisor ended'));
      process.stdin.on('error', () => resolve('the supervisor ended'));
      process.stdin.resume();
    }
    void running.ended.then(resolve);
  });
  process.stdin.pause();
  if (reason instanceof Error) log.error({ err: reason }, 'fatal');
  else log.info({ reason: reason ?? 'ended' }, 'stopping');
  const timer = clock.after(CLOSE_TIMEOUT_MS, () => {
    log.error({}, 'closing took too long');
    process.kill(process.pid, 'SIGKILL');
  });
  await running.close();
  timer.cancel();
  if (!(reason instanceof Error)) return 0;
  printLine(`holdfast: ${oneLine(reason)}`);
  return EXIT_FAILED;
}

/** Turns what a start throws into one line for people: a port in use, a bad directory. */
export function startError(what: string, error: unknown): CliError {
  if (error instanceof CliError) return error;
  const code = (error as NodeJS.ErrnoException)?.code;
  const text = oneLine(error);
  if (code === 'EADDRINUSE' || /EADDRINUSE|address already in use/i.test(text)) {
    return new CliError(`${what}: the port is in use (${text}): choose another one`);
  }
  return new CliError(`${what}: ${text}`);
}
