import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from '../../lab/command.js';

const AGENT = join(ROOT, 'tests', 'cluster', 'support', 'lock-agent.py');

/** A process that opens, locks, reads and writes what it is told to: lock-agent.py says how. */
export class LockAgent {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;

  constructor() {
    this.#child = spawn('python3', [AGENT]);
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** One command and its answer. */
  async do(command: string): Promise<string> {
    this.#child.stdin.write(`${command}\n`);
    const { value } = await this.#answers.next();
    return value ?? 'ended';
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async end(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) await ended;
  }
}
