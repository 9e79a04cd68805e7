import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { eventually } from './eventually.js';

/** A program in a process of its own, as whoever uses a mount must be. It ends with its standard input (line-program.ts). */
export class LineChild {
  readonly #child: ChildProcess;

  /**
   * @param onLine is given each line that it prints
   * @param errors 'ignore': it is expected to fail
   */
  constructor(
    command: string,
    args: string[],
    onLine: (line: string) => void,
    errors: 'inherit' | 'ignore' = 'inherit',
  ) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', errors] });
    // It may have ended before it reads.
    this.#child.stdin?.on('error', () => undefined);
    createInterface({ input: this.#child.stdout as Readable }).on('line', onLine);
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** A line for it to read. */
  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Ends its input and waits for its end; kills it when that does not come. @returns whether it ended by itself */
  async stop(timeoutMs: number): Promise<boolean> {
    this.#child.stdin?.end();
    const ended = await eventually('a program ends', () => this.ended, timeoutMs).catch(() => false);
    this.kill();
    return ended;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
