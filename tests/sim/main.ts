import { systemClock } from '../../common/clock.js';
import { type Arguments, argumentsOf, USAGE } from './arguments.js';
import { type FailureKind, type Outcome, runSeeds } from './run-seeds.js';
import type { SimulationResult } from './simulation.js';

const PROGRESS_INTERVAL_MS = 1_000;
const PROGRESS_INTERVAL_NO_TTY_MS = 30_000;
const FAILURES_SHOWN_MAX = 20;

/** Figures of all runs that held. */
class Totals {
  seeds = 0;
  virtualMs = 0;
  messages = 0;
  operations = 0;
  elections = 0;
  faults = 0;
  undecided = 0;
  readonly faultKinds: Record<string, number> = {};
  readonly failures: { seed: number; error: string; kind: FailureKind }[] = [];

  add(result: SimulationResult): void {
    this.seeds++;
    this.virtualMs += result.virtualMs;
    this.messages += result.messages;
    this.operations += result.operations;
    this.elections += result.elections;
    this.faults += result.faults;
    this.undecided += result.undecided;
    for (const [kind, count] of Object.entries(result.faultKinds)) {
      this.faultKinds[kind] = (this.faultKinds[kind] ?? 0) + count;
    }
  }
}

function report(totals: Totals, seconds: number, json: boolean): void {
  const { seeds, virtualMs, messages, operations, elections, faults, faultKinds, undecided } = totals;
  // Processes tell in any order.
  const failures = totals.failures.sort((a, b) => a.seed - b.seed);
  const virtualSeconds = Math.round(virtualMs / 1000);
  if (json) {
    const figures = { seeds, failed: failures.length, seconds, virtualSeconds, messages, operations };
    process.stdout.write(
      `${JSON.stringify({ ...figures, undecided, elections, faults, faultKinds, failures })}\n`,
    );
    return;
  }
  const livelocks = failures.filter(({ kind }) => kind === 'livelock').length;
  const lines = [
    `${seeds} seeds held, ${failures.length} did not (${livelocks} of them livelocks), in ${seconds.toFixed(1)} s`,
    `${virtualSeconds} virtual seconds, ${messages} messages, ${operations} checked operations, ` +
      `${undecided} undecided histories, ${elections} elections`,
    `${faults} faults: ${Object.entries(faultKinds)
      .map(([kind, count]) => `${kind} ${count}`)
      .join(', ')}`,
  ];
  if (failures.length > 0) lines.push(`failed: ${failures.map(({ seed }) => seed).join(' ')}`);
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Shows now and then how far the runs are. */
class Progress {
  readonly #args: Arguments;
  readonly #totals: Totals;
  readonly #started = systemClock.now();
  readonly #isTty = process.stderr.isTTY;
  #shown = this.#started;

  constructor(args: Arguments, totals: Totals) {
    this.#args = args;
    this.#totals = totals;
  }

  get seconds(): number {
    return (systemClock.now() - this.#started) / 1000;
  }

  show(): void {
    const now = systemClock.now();
    const interval = this.#isTty ? PROGRESS_INTERVAL_MS : PROGRESS_INTERVAL_NO_TTY_MS;
    if (now - this.#shown < interval) return;
    this.#shown = now;
    const { seeds } = this.#args;
    const failed = this.#totals.failures.length;
    const done = this.#totals.seeds + failed;
    const rate = done / this.seconds;
    const end = this.#isTty ? '\r' : '\n';
    const left = Math.round((seeds - done) / rate);
    process.stderr.write(
      `${done}/${seeds} seeds, ${failed} failed, ${rate.toFixed(1)}/s, ETA ${left} s  ${end}`,
    );
  }
}

async function main(): Promise<number> {
  let args: Arguments;
  try {
    args = argumentsOf(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 2;
  }
  if (args.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  // Failures are told by their text: stacks of the many expected errors cost time.
  if (!args.trace) Error.stackTraceLimit = 0;
  const totals = new Totals();
  const progress = new Progress(args, totals);
  const plant = (args.mutation ? ` --mutation ${args.mutation.name}` : '') + (args.shared ? ' --shared' : '');
  const told = (outcome: Outcome): void => {
    if ('result' in outcome) totals.add(outcome.result);
    else {
      totals.failures.push(outcome);
      if (!args.json && totals.failures.length <= FAILURES_SHOWN_MAX) {
        const replay = `npm run sim -- --seed ${outcome.seed}${plant} --trace FILE`;
        process.stdout.write(`${outcome.error}\nreplay: ${replay}\n`);
      }
    }
    progress.show();
  };
  await runSeeds(args, told);
  report(totals, progress.seconds, args.json);
  return totals.failures.length > 0 ? 1 : 0;
}

process.exitCode = await main();
