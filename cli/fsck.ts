import { Command } from 'commander';
import { describeFinding, runCheck, verdictOf } from './check-output.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { EXIT_FAILED, formatBytes, printJson, printLine } from './output.js';

interface FsckFlags extends ClusterSelection {
  repair?: boolean;
  quick?: boolean;
  json?: boolean;
}

/** `holdfast fsck`: checks the cluster while it is in use. */
export function fsckCommand(): Command {
  const command = new Command('fsck')
    .description(
      'check the whole file system while it is in use; exit code 0: sound, 1: damage is left, or not all was checked',
    )
    .option('--repair', 'repair what has one right answer')
    .option('--quick', 'compare the versions of chunks only, without reading their contents')
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (flags: FsckFlags) => {
    const { addresses } = await selectCluster(flags);
    const request = {
      repair: flags.repair ?? false,
      skipNamespace: false,
      skipData: false,
      skipContents: flags.quick ?? false,
    };
    const { findings, summary } = await runCheck(addresses, request, (finding) => {
      if (!flags.json) printLine(describeFinding(finding));
    });
    const { clean, text } = verdictOf(summary);
    if (flags.json) printJson({ clean, ...summary, findings });
    else {
      const { inodes, names, chunks, bytes, pgs, pgsSkipped } = summary;
      printLine(
        `${text}: ${inodes} inodes, ${names} names, ${chunks} chunks, ${formatBytes(bytes)} in all replicas of ${pgs} PGs`,
      );
      if (pgsSkipped > 0) printLine(`${pgsSkipped} of ${pgs} PGs were not compared on all in-sync replicas`);
    }
    if (!clean) process.exitCode = EXIT_FAILED;
  });
}
