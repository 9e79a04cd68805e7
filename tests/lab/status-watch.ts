import { metaAddresses, readClusterFile } from '../../cli/cluster-file.js';
import { StatusReader } from '../../cli/cluster-status.js';
import { delay, systemClock } from '../../common/clock.js';
import { onInputEnd, say } from './line-program.js';
import { monotonicMs } from './monotonic.js';

/** A child of the lab, on a host of its own: prints the cluster's status again and again, one JSON line each. */

const INTERVAL_MS = 250;
const TIMEOUT_MS = 1_500;

async function main(clusterFile: string): Promise<void> {
  const cluster = await readClusterFile(clusterFile);
  if (!cluster) throw new Error(`no cluster file ${clusterFile}`);
  const reader = new StatusReader(metaAddresses(cluster), cluster.chunkservers.length);
  onInputEnd(() => process.exit(0));
  for (;;) {
    const asked = monotonicMs();
    const status = await reader.read(TIMEOUT_MS);
    say({ asked, status: status ?? null });
    await delay(systemClock, INTERVAL_MS);
  }
}

main(process.argv[2] as string).catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
