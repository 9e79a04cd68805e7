import { Command } from 'commander';
import { describeFinding, runCheck, verdictOf } from './check-output.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { EXIT_FAILED, formatBytes, printJson, printLine } from './output.js';

interface ScrubFlags extends ClusterSelection {
  json?: boolean;
}

/** `holdfast scrub`: reads all data of all replicas now, and repairs what is damaged. */
export function scrubCommand(): Command {
  const command = new Command('scrub')
    .description(
      'read and verify all replicas now, and repair damage from sound copies; exit code 1: some is left',
    )
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (flags: ScrubFlags) => {
    const { addresses } = await selectCluster(flags);
    const request = { repair: true, skipNamespace: true, skipData: false, skipContents: false };
    const { findings, summary } = await runCheck(addresses, request, (finding) => {
      if (!flags.json) printLine(describeFinding(finding));
    });
    const { chunks, bytes, pgs, pgsSkipped, found, repaired } = summary;
    const { clean, text } = verdictOf(summary);
    if (flags.json) printJson({ clean, chunks, bytes, pgs, pgsSkipped, found, repaired, findings });
    else {
      printLine(`${text}: ${chunks} chunks, ${formatBytes(bytes)} read in all replicas of ${pgs} PGs`);
      if (pgsSkipped > 0) printLine(`${pgsSkipped} of ${pgs} PGs were not read on all in-sync replicas`);
    }
    if (!clean) process.exitCode = EXIT_FAILED;
  });
}
