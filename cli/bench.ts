import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { sh } from './bench/child.js';
import { mayDropPageCache, runSuite } from './bench/suite.js';
import { type Figure, GROUPS, type Group, Recorder } from './bench/workloads.js';
import { parseInteger } from './cluster-options.js';
import { CliError, EXIT_FAILED, formatTable, printJson, printLine } from './output.js';

const REMOUNT_TIMEOUT_MS = 120_000;

interface BenchFlags {
  json?: boolean;
  only?: string;
  mib: number;
  seconds: number;
  files: number;
  remount?: string;
}

/** `holdfast bench DIR`: the workloads of docs/benchmarks.md on any directory. */
export function benchCommand(): Command {
  return new Command('bench')
    .description('measure a directory: large and small requests, synced writes, small files, standard tools')
    .argument(
      '<dir>',
      'any directory, on Holdfast or not; everything happens in a subdirectory that is removed',
    )
    .option('--only <groups>', `comma-separated: ${GROUPS.join(', ')} (default: all)`)
    .option(
      '--mib <n>',
      'size of the file of the sequential and random rows, MiB',
      parseInteger('--mib', 4, 1e6),
      512,
    )
    .option(
      '--seconds <n>',
      'length of each random and each commit row, s',
      parseInteger('--seconds', 1, 3600),
      10,
    )
    .option('--files <n>', 'files of the metadata rows', parseInteger('--files', 1, 1e7), 2000)
    .option('--remount <command>', 'shell command that mounts DIR anew, run before cold rows')
    .option('--json', 'print one JSON object at the end')
    .action(async (dir: string, flags: BenchFlags) => {
      const directory = resolve(dir);
      if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
        throw new CliError(`no directory at ${directory}: name one that exists`);
      }
      const groups = selectGroups(flags.only);
      if (!mayDropPageCache()) {
        process.stderr.write('holdfast: not root: the page cache stays, cold rows are not cold\n');
      }
      const onFigure = flags.json ? undefined : (figure: Figure) => printLine(figureLine(figure));
      const out = new Recorder({ onFigure });
      const { mib, seconds, files, remount } = flags;
      await runSuite(
        directory,
        {
          groups,
          sizes: { sequentialMib: mib, seconds, files },
          remount: remount ? () => runRemount(remount, directory) : undefined,
        },
        out,
      );
      const { figures, skipped } = out;
      if (!flags.json)
        for (const { workload, reason } of skipped) printLine(`not measured: ${workload}: ${reason}`);
      if (figures.length === 0) {
        const fields = { directory, figures, skipped };
        throw new CliError(`nothing could be measured in ${directory}`, EXIT_FAILED, fields);
      }
      if (flags.json) printJson({ directory, figures, skipped });
      if (skipped.length > 0) process.exitCode = EXIT_FAILED;
    });
}

async function runRemount(command: string, directory: string): Promise<string> {
  await sh(command, { timeoutMs: REMOUNT_TIMEOUT_MS });
  return directory;
}

/** @throws CliError for an unknown group */
function selectGroups(only: string | undefined): Group[] {
  if (only === undefined) return [...GROUPS];
  return only.split(',').map((name) => {
    const group = GROUPS.find((one) => one === name.trim());
    if (!group) throw new CliError(`--only ${name}: no such group; there are ${GROUPS.join(', ')}`);
    return group;
  });
}

function figureLine({ workload, value, unit }: Figure): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return formatTable([[workload.padEnd(56), value.toFixed(digits).padStart(10), unit]]);
}
