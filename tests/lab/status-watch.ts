import { metaAddresses, readClusterFile } from '../../cli/cluster-file.js';
import { StatusReader } from '../../cli/cluster-status.js';
import { delay, systemClock } from '../../common/clock.js';
import { monotonicMs } from './monotonic.js';

/** A child of the lab, on a host of its own: prints the cluster's status again and again, one JSON line each. */

const INTERVAL_MS = 250;
const TIMEOUT_MS = 1_500;

async function main(clusterFile: string): Promise<void> {
  const cluster = await readClusterFile(clusterFile);
  if (!cluster) throw new Error(`no cluster file ${clusterFile}`);
  const reader = new StatusReader(metaAddresses(cluster), cluster.chunkservers.length);
  // The lab that started us holds the other end.
  process.stdin.on('end', () => process.exit(0)).resume();
  process.stdout.on('error', () => process.exit(0));
  for (;;) {
    const asked = monotonicMs();
    const status = await reader.read(TIMEOUT_MS);
    process.stdout.write(`${JSON.stringify({ asked, status: status ?? null })}\n`);
    await delay(systemClock, INTERVAL_MS);
  }
}

main(process.argv[2] as string).catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
