import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../lab/command.js';
import { eventually } from '../lab/eventually.js';
import { LineChild } from '../lab/line-child.js';
import { judge, type Observation, type Verdict } from './consistency.js';

const CHILD = join(dirname(fileURLToPath(import.meta.url)), 'check-child.js');
const END_TIMEOUT_MS = 120_000;
const LIST_TIMEOUT_MS = 120_000;

/** Two clients that use the same files: one writes what the other reads, and both claim the same names. */
export class Watchers {
  readonly #observations: Observation[] = [];
  readonly #children: LineChild[] = [];

  /** @param dirs the same directory, through the writing and through the reading client */
  start(dirs: { writer: string; reader: string }): void {
    this.#spawn('write', dirs.writer);
    this.#spawn('read', dirs.reader);
    this.#spawn('claim', dirs.writer, 'writer');
    this.#spawn('claim', dirs.reader, 'reader');
  }

  /** How many operations of a kind were seen; `claim` counts those won by one of the two. */
  count(kind: Observation['kind']): number {
    return this.#observations.filter((one) => one.kind === kind).length;
  }

  /** Waits until every program has done so many further operations. @throws Error when they do not come */
  async progress(more = 5, timeoutMs = 120_000): Promise<void> {
    const kinds = ['write', 'read', 'claim'] as const;
    const before = kinds.map((kind) => this.count(kind));
    const behind = (): string[] => kinds.filter((kind, n) => this.count(kind) < (before[n] ?? 0) + more);
    const done = (): boolean => {
      if (this.#children.some((child) => child.ended))
        throw new Error(`a program ended: ${this.judge().offences.join('; ')}`);
      return behind().length === 0;
    };
    await eventually('two clients go on', done, timeoutMs).catch((error: Error) => {
      throw new Error(`${error.message} (${behind().join(', ')})`);
    });
  }

  /** Judges what was seen so far. */
  judge(): Verdict {
    return judge(this.#observations);
  }

  /** Ends the programs and judges what they saw; the names that were won must be there, seen from `dir`. */
  async stop(dir: string): Promise<Verdict> {
    const ended = await Promise.all(this.#children.map((child) => child.stop(END_TIMEOUT_MS)));
    const verdict = this.judge();
    if (ended.includes(false)) verdict.offences.push('an operation never returned');
    const listing = await run(process.execPath, [CHILD, 'list', dir], { timeoutMs: LIST_TIMEOUT_MS });
    const { names } = JSON.parse(listing.stdout || '{"names":[]}') as { names: string[] };
    const present = new Set(names);
    const lost = this.#observations.filter(
      (one) => one.kind === 'claim' && one.won && !present.has(`claim-${one.name}`),
    );
    if (lost.length > 0) verdict.offences.push(`${lost.length} names that were won are not there`);
    return verdict;
  }

  kill(): void {
    for (const child of this.#children) child.kill();
  }

  #spawn(program: string, dir: string, client = ''): void {
    const observe = (line: string): void => {
      const said = JSON.parse(line) as Observation;
      this.#observations.push(said.kind === 'claim' ? { ...said, client } : said);
    };
    this.#children.push(new LineChild(process.execPath, [CHILD, program, dir], observe));
  }
}
