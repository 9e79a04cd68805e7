import { type ClusterSelection, dataDirOf } from './cluster-options.js';
import { sendControl } from './control.js';
import { CliError, EXIT_FAILED } from './output.js';

/** What commands that add and remove servers ask of the `up` that runs the cluster they name, when it is on this machine. */

/**
 * Has it start a further server.
 * @param elsewhere how to start one without it, for the error
 * @returns the server's name, and the data directory
 * @throws CliError
 */
export async function startFurther(
  selection: ClusterSelection,
  kind: 'metaserver' | 'chunkserver',
  elsewhere: string,
): Promise<{ name: string; dataDir: string }> {
  const dataDir = dataDirOf(selection);
  if (dataDir === undefined)
    throw new CliError(`name the data directory of a running 'holdfast up' with --data, or ${elsewhere}`);
  const reply = await sendControl(dataDir, { command: 'add', name: kind }).catch(() => undefined);
  if (!reply)
    throw new CliError(
      `no 'holdfast up' is running on ${dataDir}: name its data directory with --data, or ${elsewhere}`,
    );
  if (!reply.ok || !reply.name) throw new CliError(`cannot add a ${kind}: ${reply.error}`, EXIT_FAILED);
  return { name: reply.name, dataDir };
}

/** A server that has left the cluster is stopped, and not started again, when such an `up` runs it. */
export async function stopForGood(selection: ClusterSelection, name: string): Promise<void> {
  const dataDir = dataDirOf(selection);
  if (dataDir !== undefined) await sendControl(dataDir, { command: 'remove', name }).catch(() => undefined);
}
