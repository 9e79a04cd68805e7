import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from '../lab/eventually.js';
import { LineChild } from '../lab/line-child.js';
import { monotonicMs } from '../lab/monotonic.js';

const HERE = dirname(fileURLToPath(import.meta.url));
/** Operations kept; older ones are forgotten. */
const OPERATIONS_MAX = 2_000_000;

export interface ProbeOperation {
  began: number;
  ms: number;
}

/** A program that appends 4 KiB to a file and fsyncs it in a loop, from a process of its own. */
export class Probe {
  readonly #path: string;
  #child: LineChild | undefined;
  readonly operations: ProbeOperation[] = [];
  readonly errors: string[] = [];
  #pendingSince: number | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Starts it; returns when it has synced some records. */
  async start(): Promise<void> {
    const program = join(HERE, 'probe-child.js');
    this.#child = new LineChild(process.execPath, [program, this.#path], (line) => this.#record(line));
    await this.progress(20);
  }

  /** Waits for so many further operations, begun from now on. @throws Error when they do not come */
  async progress(count = 20, timeoutMs = 120_000): Promise<void> {
    const from = monotonicMs();
    await eventually(
      'the probe goes on',
      () => {
        if (!this.#child || this.#child.ended) throw new Error('the probe ended');
        return (this.operations.at(-count)?.began ?? Number.NEGATIVE_INFINITY) >= from;
      },
      timeoutMs,
    );
  }

  /** The longest operation that was on at some moment of the span; one that is still on counts. */
  longestStall(fromMs: number, toMs: number): number {
    let longest = 0;
    for (const { began, ms } of this.operations)
      if (began <= toMs && began + ms >= fromMs) longest = Math.max(longest, ms);
    const pending = this.#pendingSince;
    return pending !== undefined && pending <= toMs ? Math.max(longest, monotonicMs() - pending) : longest;
  }

  /** Ends it after the operation that is on. @returns whether it ended by itself */
  async stop(timeoutMs = 60_000): Promise<boolean> {
    const child = this.#child;
    this.#child = undefined;
    return child ? child.stop(timeoutMs) : true;
  }

  #record(line: string): void {
    const said = JSON.parse(line) as { began?: number; ms?: number; error?: string; pending?: number };
    this.#pendingSince = said.pending;
    if (said.error !== undefined) this.errors.push(said.error);
    else if (said.began !== undefined && said.ms !== undefined) {
      if (this.operations.length >= OPERATIONS_MAX) this.operations.splice(0, OPERATIONS_MAX / 2);
      this.operations.push({ began: said.began, ms: said.ms });
    }
  }
}
