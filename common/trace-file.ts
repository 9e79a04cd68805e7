import path from 'node:path';
import type { Clock, Timer } from './clock.js';
import { type Disk, type DiskFile, diskErrorCode } from './disk.js';
import type { Logger } from './logger.js';
import type { Span, SpanSink } from './trace.js';

/** A trace file that has grown so large becomes `NAME.old.jsonl`, in the place of the one before: a process keeps twice this. */
export const TRACE_FILE_MAX_BYTES = 64 * 1024 * 1024;
/** Text of spans that wait to be written; what comes beyond it is dropped and counted. */
const PENDING_MAX_BYTES = 8 * 1024 * 1024;
const FLUSH_INTERVAL_MS = 200;

/** Spans of one process as lines of JSON, written behind. A disk that fails ends the tracing, not the process. */
export class TraceFile implements SpanSink {
  readonly #disk: Disk;
  readonly #log: Logger;
  readonly #file: string;
  readonly #maxBytes: number;
  readonly #timer: Timer;
  #pending: string[] = [];
  #pendingBytes = 0;
  #dropped = 0;
  #handle: DiskFile | undefined;
  #written = 0;
  #writing: Promise<void> = Promise.resolve();
  #failed = false;

  /**
   * Begins `NAME.jsonl` in a directory that is made when missing; the former one is kept as `NAME.old.jsonl`.
   * @throws the disk's error
   */
  static async open(
    dir: string,
    name: string,
    deps: { disk: Disk; clock: Clock; log: Logger },
    maxBytes = TRACE_FILE_MAX_BYTES,
  ): Promise<TraceFile> {
    await deps.disk.mkdir(dir);
    const file = new TraceFile(path.join(dir, `${name}.jsonl`), deps, maxBytes);
    await file.#begin();
    return file;
  }

  private constructor(file: string, deps: { disk: Disk; clock: Clock; log: Logger }, maxBytes: number) {
    this.#file = file;
    this.#disk = deps.disk;
    this.#log = deps.log;
    this.#maxBytes = maxBytes;
    this.#timer = deps.clock.every(FLUSH_INTERVAL_MS, () => void this.flush(), { weak: true });
  }

  add(span: Span): void {
    if (this.#failed) return;
    if (this.#pendingBytes >= PENDING_MAX_BYTES) {
      this.#dropped++;
      return;
    }
    const line = `${JSON.stringify(span)}\n`;
    this.#pending.push(line);
    this.#pendingBytes += line.length;
  }

  /** Resolves when everything added before is in the file, or the file has failed. */
  flush(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async close(): Promise<void> {
    this.#timer.cancel();
    await this.flush();
    this.#failed = true;
    await this.#handle?.close();
  }

  async #begin(): Promise<void> {
    await this.#handle?.close();
    try {
      await this.#disk.rename(this.#file, `${this.#file.slice(0, -'.jsonl'.length)}.old.jsonl`);
    } catch (error) {
      if (diskErrorCode(error) !== 'ENOENT') throw error;
    }
    this.#handle = await this.#disk.open(this.#file, 'create');
    this.#written = 0;
  }

  async #write(): Promise<void> {
    if (this.#pending.length === 0 || this.#failed) return;
    if (this.#dropped > 0) this.#pending.push(`${JSON.stringify({ dropped: this.#dropped })}\n`);
    const text = Buffer.from(this.#pending.join(''));
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#dropped = 0;
    try {
      if (this.#written >= this.#maxBytes) await this.#begin();
      await this.#handle?.write([text], this.#written);
      this.#written += text.length;
    } catch (error) {
      this.#failed = true;
      this.#log.warn({ err: error, file: this.#file }, 'tracing ends: its file cannot be written');
    }
  }
}
