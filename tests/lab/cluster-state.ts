import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterStatus } from '../../cli/cluster-status.js';
import { eventually } from './eventually.js';

const HEALTHY_TIMEOUT_MS = 60_000;

/** Waits until a status says that nothing is amiss. @throws Error with the problems that the last one named */
export async function untilHealthy(
  read: () => Promise<ClusterStatus | undefined>,
  timeoutMs = HEALTHY_TIMEOUT_MS,
): Promise<ClusterStatus> {
  let last: ClusterStatus | undefined;
  const healthy = async (): Promise<ClusterStatus | undefined> => {
    last = await read();
    return last?.healthy ? last : undefined;
  };
  return eventually('the cluster is healthy', healthy, timeoutMs).catch((error: Error) => {
    throw new Error(`${error.message}: ${last?.problems.join('; ') ?? 'no metaserver answers'}`);
  });
}

/** The last lines of every log below a cluster's data directory, for a failure's message. */
export function logTails(data: string, lines: number): string {
  const dir = join(data, 'log');
  if (!existsSync(dir)) return '';
  const tail = (file: string): string =>
    readFileSync(join(dir, file), 'utf8').split('\n').slice(-lines).join('\n');
  return readdirSync(dir)
    .map((file) => `== ${file}\n${tail(file)}`)
    .join('\n');
}
