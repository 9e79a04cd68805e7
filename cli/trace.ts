import { createReadStream, existsSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { CliError, EXIT_FAILED, formatTable, printJson, printLine } from './output.js';
import { parseSpans, type Timing, TraceSummarizer, type TraceSummary } from './trace-summary.js';
import { TRACE_DIR } from './tracing.js';

/** `holdfast trace DATA`: where the time of requests went. */
export function traceCommand(): Command {
  return new Command('trace')
    .description(
      'sum up what --trace has noted: for each operation how often, how long, and where the time went',
    )
    .argument('<dir>', 'the data directory of `holdfast up --trace`, or the directory given to --trace')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nA moment of a request counts for the innermost part at work then. `fuse` is the mount itself, and waiting for' +
        '\nwork that another request had begun; times of processes on other machines are not comparable.',
    )
    .action(async (dir: string, flags: { json?: boolean }) => {
      const summary = await readTraces(resolve(dir));
      if (flags.json) printJson(summary);
      else printLine(renderTrace(summary));
    });
}

/** @throws CliError when there are no traces */
async function readTraces(dir: string): Promise<TraceSummary> {
  const places = [join(dir, TRACE_DIR), dir];
  const place = places.find((one) => existsSync(one) && statSync(one).isDirectory());
  const files = place ? readdirSync(place).filter((name) => name.endsWith('.jsonl')) : [];
  if (!place || files.length === 0)
    throw new CliError(
      `no traces in ${dir}: run 'holdfast up --trace', or a server or mount with --trace DIR`,
    );
  const summarizer = new TraceSummarizer();
  for (const name of files.sort()) {
    const lines = createInterface({ input: createReadStream(join(place, name)), crlfDelay: Infinity });
    for await (const line of lines) for (const span of parseSpans(line)) summarizer.add(span);
  }
  const summary = summarizer.summary();
  if (summary.spans === 0) throw new CliError(`the traces in ${place} are empty`, EXIT_FAILED);
  return summary;
}

/** For people. */
export function renderTrace({ spans, dropped, operations, work }: TraceSummary): string {
  const times = ({ count, errors, totalUs, p50Us, p99Us }: Timing): string[] => [
    String(count),
    String(errors),
    milliseconds(p50Us),
    milliseconds(p99Us),
    milliseconds(totalUs),
  ];
  const head = ['count', 'errors', 'p50 ms', 'p99 ms', 'total ms'];
  const requests = operations.map((one) => [
    one.operation,
    ...times(one),
    one.stages.map(({ stage, share }) => `${stage} ${Math.round(share * 100)} %`).join(', '),
  ]);
  const parts = work.map((one) => [one.stage, one.name, ...times(one)]);
  return [
    formatTable([['operation', ...head, 'where the time went'], ...requests]),
    '',
    'Everything that was done, whether a program waited for it or not:',
    '',
    formatTable([['stage', 'what', ...head], ...parts]),
    '',
    `${spans} spans${dropped > 0 ? `, ${dropped} more were not noted: too many at a time` : ''}`,
  ].join('\n');
}

function milliseconds(us: number): string {
  return (us / 1000).toFixed(us < 100_000 ? 3 : 0);
}
