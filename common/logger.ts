import { type DestinationStream, type LoggerOptions, pino } from 'pino';

/** What the parts need of a logger: one JSON line an event, stable field names, `msg` last. */
export interface Logger {
  trace(fields: object, msg: string): void;
  debug(fields: object, msg: string): void;
  info(fields: object, msg: string): void;
  warn(fields: object, msg: string): void;
  error(fields: object, msg: string): void;
  child(fields: object): Logger;
}

/** Log levels, most severe first. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const STDOUT_FD = 1;

/**
 * A logger that writes to `destination`, or to standard output: there a line is written when the call returns, so that the
 * last words of a process that ends at once are not lost.
 * @param base fields on every line, for instance `{ part: 'metaserver', id: 1 }`
 */
export function createLogger(
  base: object,
  level: LogLevel = 'info',
  destination?: DestinationStream,
): Logger {
  const options: LoggerOptions = {
    level,
    base,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  return pino(options, destination ?? pino.destination({ dest: STDOUT_FD, sync: true }));
}

/** A logger that drops everything: for tests and pure cores without a shell. */
export const silentLogger: Logger = createLogger({}, 'silent');
