import { crc32c } from '../../common/crc32c.js';
import type { Logger } from '../../common/logger.js';
import type { VirtualClock } from '../chunkserver/pg/sim/virtual-clock.js';

/** Lines that are kept to explain a failure. */
const LINES_MAX = 400_000;

/** What happened, as a hash: two runs of one seed must have the same. Lines are kept only where they are wanted. */
export class Trace {
  readonly #time: VirtualClock;
  readonly lines: string[] = [];
  readonly verbose: boolean;
  events = 0;
  #hash = 0;

  constructor(time: VirtualClock, verbose: boolean) {
    this.#time = time;
    this.verbose = verbose;
  }

  get hash(): string {
    return `${this.events}-${this.#hash.toString(16).padStart(8, '0')}`;
  }

  /** @param text is made only when lines are kept */
  note(what: string, bytes: Uint8Array | undefined, text?: () => string): void {
    this.events++;
    this.#hash = crc32c(Buffer.from(`${what}@${this.#time.now()}`), this.#hash);
    if (bytes) this.#hash = crc32c(asBuffer(bytes), this.#hash);
    if (this.verbose) this.#line(`${what} ${text?.() ?? ''}`);
  }

  /** A logger whose lines go into the trace. */
  logger(base: object): Logger {
    const log =
      (level: string) =>
      (fields: object, msg: string): void => {
        if (this.verbose) this.#line(`${level} ${JSON.stringify({ ...base, ...plain(fields) })} ${msg}`);
      };
    return {
      trace: log('trace'),
      debug: log('debug'),
      info: log('info'),
      warn: log('warn'),
      error: log('error'),
      child: (fields) => this.logger({ ...base, ...fields }),
    };
  }

  #line(line: string): void {
    if (this.lines.length < LINES_MAX) this.lines.push(`${this.#time.now().toFixed(3)} ${line}`);
  }
}

/** Errors do not show in JSON. */
function plain(fields: object): object {
  const entries = Object.entries(fields).map(([key, value]) => [
    key,
    value instanceof Error ? (value.stack ?? value.message) : value,
  ]);
  return Object.fromEntries(entries);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
