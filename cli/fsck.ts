import { Command } from 'commander';
import type { CheckFinding } from '../proto/gen/admin.js';
import { runCheck } from './check-output.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { EXIT_FAILED, printJson, printLine } from './output.js';

interface FsckFlags extends ClusterSelection {
  repair?: boolean;
  json?: boolean;
}

/** `holdfast fsck`: checks the cluster while it is in use. */
export function fsckCommand(): Command {
  const command = new Command('fsck')
    .description('check the whole file system while it is in use; exit code 0: sound, 1: damage is left')
    .option('--repair', 'repair what has one right answer')
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (flags: FsckFlags) => {
    const { addresses } = await selectCluster(flags);
    const request = {
      repair: flags.repair ?? false,
      skipNamespace: false,
      skipData: false,
      skipContents: false,
    };
    const { findings, summary } = await runCheck(addresses, request, (finding) => {
      if (!flags.json) printLine(describe(finding));
    });
    const clean = summary.found === summary.repaired;
    if (flags.json) printJson({ clean, ...summary, findings });
    else {
      const { inodes, names, found, repaired } = summary;
      const verdict = found === 0 ? 'sound' : `${found} found, ${repaired} repaired`;
      printLine(`${verdict}: ${inodes} inodes, ${names} names`);
    }
    if (!clean) process.exitCode = EXIT_FAILED;
  });
}

function describe({ kind, text, pg, repaired, repairable }: CheckFinding): string {
  const where = pg === undefined ? '' : `PG ${pg}: `;
  const done = repaired ? ' (repaired)' : repairable ? '' : ' (no one right answer: not repaired)';
  return `${kind}: ${where}${text}${done}`;
}
