import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { systemClock } from '../../common/clock.js';
import { MUTATIONS } from './mutations/index.js';
import { Simulation, type SimulationOptions, type SimulationResult } from './simulation.js';

const USAGE = `Runs the whole cluster in simulation, one run for each seed.

  npm run sim -- [--seeds N] [--seed S] [--json] [--trace FILE] [--mutation NAME]

  --seeds N        how many seeds; default 100, or 1 when --seed is given
  --seed S         the first seed; default 1. One seed is one exact run
  --json           one line of JSON at the end instead of text
  --trace FILE     writes what happened in the last run, line by line
  --mutation NAME  plants a bug: ${MUTATIONS.map(({ name }) => name).join(', ')}
  --keep-going     does not stop at the first seed that fails

Exit codes: 0 all seeds hold, 1 one does not, 2 bad arguments.
`;
const PROGRESS_INTERVAL_MS = 1_000;
const PROGRESS_INTERVAL_NO_TTY_MS = 30_000;
const FAILURES_SHOWN_MAX = 20;

interface Arguments {
  seeds: number;
  first: number;
  json: boolean;
  keepGoing: boolean;
  trace: string | undefined;
  mutation: SimulationOptions['mutation'];
}

/** @throws Error with one line for whoever typed it */
function argumentsOf(argv: string[]): Arguments {
  const { values } = parseArgs({
    args: argv,
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      json: { type: 'boolean', default: false },
      trace: { type: 'string' },
      mutation: { type: 'string' },
      'keep-going': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const count = (name: 'seeds' | 'seed', absent: number): number => {
    const text = values[name];
    if (text === undefined) return absent;
    const number = Number(text);
    if (!Number.isSafeInteger(number) || number < 1)
      throw new Error(`--${name} ${text}: not a number from 1 on`);
    return number;
  };
  const mutation = MUTATIONS.find(({ name }) => name === values.mutation);
  if (values.mutation !== undefined && !mutation) {
    throw new Error(`--mutation ${values.mutation}: there is no such one, see --help`);
  }
  const seeds = count('seeds', values.seed === undefined ? 100 : 1);
  const { json, trace, 'keep-going': keepGoing } = values;
  return { seeds, first: count('seed', 1), json, keepGoing, trace, mutation };
}

/** Figures of all runs that held. */
class Totals {
  seeds = 0;
  virtualMs = 0;
  messages = 0;
  operations = 0;
  elections = 0;
  faults = 0;
  readonly faultKinds: Record<string, number> = {};
  readonly failures: { seed: number; error: string }[] = [];

  add(result: SimulationResult): void {
    this.seeds++;
    this.virtualMs += result.virtualMs;
    this.messages += result.messages;
    this.operations += result.operations;
    this.elections += result.elections;
    this.faults += result.faults;
    for (const [kind, count] of Object.entries(result.faultKinds)) {
      this.faultKinds[kind] = (this.faultKinds[kind] ?? 0) + count;
    }
  }
}

function report(totals: Totals, seconds: number, json: boolean): void {
  const { seeds, virtualMs, messages, operations, elections, faults, faultKinds, failures } = totals;
  const virtualSeconds = Math.round(virtualMs / 1000);
  if (json) {
    const figures = { seeds, failed: failures.length, seconds, virtualSeconds, messages, operations };
    process.stdout.write(`${JSON.stringify({ ...figures, elections, faults, faultKinds, failures })}\n`);
    return;
  }
  const lines = [
    `${seeds} seeds held, ${failures.length} did not, in ${seconds.toFixed(1)} s`,
    `${virtualSeconds} virtual seconds, ${messages} messages, ${operations} checked operations, ${elections} elections`,
    `${faults} faults: ${Object.entries(faultKinds)
      .map(([kind, count]) => `${kind} ${count}`)
      .join(', ')}`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function main(): Promise<number> {
  let args: Arguments;
  try {
    args = argumentsOf(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 2;
  }
  const { seeds, first, json, keepGoing, trace, mutation } = args;
  // Failures are told by their text: stacks of the many expected errors cost time.
  if (!trace) Error.stackTraceLimit = 0;
  const totals = new Totals();
  const started = systemClock.now();
  const interval = process.stderr.isTTY ? PROGRESS_INTERVAL_MS : PROGRESS_INTERVAL_NO_TTY_MS;
  let shown = started;
  for (let seed = first; seed < first + seeds; seed++) {
    const simulation = new Simulation({ seed, verbose: trace !== undefined, mutation });
    try {
      totals.add(await simulation.run());
    } catch (error) {
      const text = (error as Error).message;
      totals.failures.push({ seed, error: text });
      const plant = mutation ? ` --mutation ${mutation.name}` : '';
      if (!json && totals.failures.length <= FAILURES_SHOWN_MAX) {
        process.stdout.write(`${text}\nreplay: npm run sim -- --seed ${seed}${plant} --trace FILE\n`);
      }
    }
    if (trace) writeFileSync(trace, `${simulation.world.trace.lines.join('\n')}\n`);
    if (totals.failures.length > 0 && !keepGoing) break;
    const now = systemClock.now();
    if (now - shown < interval) continue;
    shown = now;
    const done = seed - first + 1;
    const left = Math.round((((now - started) / done) * (seeds - done)) / 1000);
    const end = process.stderr.isTTY ? '\r' : '\n';
    process.stderr.write(`${done}/${seeds} seeds, ${totals.failures.length} failed, ETA ${left} s  ${end}`);
  }
  report(totals, (systemClock.now() - started) / 1000, json);
  return totals.failures.length > 0 ? 1 : 0;
}

process.exitCode = await main();
