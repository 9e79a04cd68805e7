import { Command } from 'commander';
import { delay, systemClock } from '../common/clock.js';
import { HoldfastError } from '../proto/errors.js';
import { AdminServiceDefinition, ChunkServerAction } from '../proto/gen/admin.js';
import {
  addClusterOptions,
  type ClusterSelection,
  type SelectedCluster,
  selectCluster,
} from './cluster-options.js';
import { type ClusterStatus, StatusReader } from './cluster-status.js';
import { callLeader } from './leader-stream.js';
import { CliError, EXIT_FAILED, oneLine, printEvent } from './output.js';
import { startFurther, stopForGood } from './running-up.js';
import { renderRecovery } from './status.js';

interface ManageFlags extends ClusterSelection {
  wait: boolean;
  json?: boolean;
  cancel?: boolean;
}

const POLL_MS = 500;
const STATUS_TIMEOUT_MS = 2_000;
/** A server that was added has its share when it holds as much as any other, and nothing has moved for so long .. */
const SETTLED_MS = 2_000;
/** .. or when nothing has moved for so long: failure domains may forbid an even spread. */
const UNEVEN_SETTLED_MS = 15_000;
/** A server that was added must register within this time. */
const REGISTER_TIMEOUT_MS = 60_000;

/** `holdfast chunkserver add`: a further chunkserver, which gets its share of the PGs. */
export function addCommand(): Command {
  const command = new Command('add')
    .description('add a chunkserver and move its share of the data onto it')
    .argument(
      '[id]',
      'number of a server that was started elsewhere; without it, the running `holdfast up` starts one',
    );
  return options(command).action(async (id: string | undefined, flags: ManageFlags) => {
    const cluster = await selectCluster(flags);
    const server = id === undefined ? await startHere(flags) : parseServer(id);
    if (id !== undefined) await waitForRegistration(cluster, server);
    // One that was to be drained stays.
    if (id !== undefined) await order(cluster, server, ChunkServerAction.CHUNK_SERVER_KEEP);
    if (flags.wait) await waitUntil(cluster, server, flags, spread(server));
    printEvent(flags.json, { event: 'added', server }, `added: chunkserver-${server}`);
  });
}

/** `holdfast chunkserver drain`: moves all PGs of a chunkserver to others. */
export function drainCommand(): Command {
  const command = new Command('drain')
    .description(
      'move all data of a chunkserver to the others; every copy is kept until another one is complete',
    )
    .argument('<id>', 'number of the server')
    .option('--cancel', 'end a drain: the server may hold data again');
  return options(command).action(async (id: string, flags: ManageFlags) => {
    const cluster = await selectCluster(flags);
    const server = parseServer(id);
    if (flags.cancel) {
      await order(cluster, server, ChunkServerAction.CHUNK_SERVER_KEEP);
      printEvent(flags.json, { event: 'kept', server }, `not drained: chunkserver-${server}`);
      return;
    }
    await order(cluster, server, ChunkServerAction.CHUNK_SERVER_DRAIN);
    if (flags.wait) await waitUntil(cluster, server, flags, (status) => find(status, server)?.pgs === 0);
    const done = flags.wait ? 'drained' : 'draining';
    printEvent(flags.json, { event: done, server }, `${done}: chunkserver-${server}`);
  });
}

/** `holdfast chunkserver remove`: a drained chunkserver leaves the cluster. */
export function removeCommand(): Command {
  const command = new Command('remove')
    .description('take a drained chunkserver out of the cluster; its data directory is left alone')
    .argument('<id>', 'number of the server');
  return options(command).action(async (id: string, flags: ManageFlags) => {
    const cluster = await selectCluster(flags);
    const server = parseServer(id);
    await order(cluster, server, ChunkServerAction.CHUNK_SERVER_REMOVE);
    await stopForGood(flags, `chunkserver-${server}`);
    printEvent(flags.json, { event: 'removed', server }, `removed: chunkserver-${server}`);
  });
}

function options(command: Command): Command {
  command
    .option('--no-wait', 'do not wait until the data has moved')
    .option('--json', 'print one JSON line for each event');
  return addClusterOptions(command);
}

/** @throws CliError */
function parseServer(text: string): number {
  const match = /^(?:chunkserver-)?(\d{1,5})$/.exec(text);
  if (!match)
    throw new CliError(`'${text}' is no chunkserver: give its number, as 'holdfast status' shows it`);
  return Number(match[1]);
}

/** Has the running `up` start a further server. @returns its number. @throws CliError */
async function startHere(flags: ManageFlags): Promise<number> {
  const elsewhere = "start 'holdfast chunkserver' where the disk is and give its number";
  return parseServer((await startFurther(flags, 'chunkserver', elsewhere)).name);
}

/** @throws CliError with what the leader answered */
async function order(
  { addresses }: SelectedCluster,
  server: number,
  action: ChunkServerAction,
): Promise<void> {
  const { manageChunkServer } = AdminServiceDefinition.methods;
  try {
    await callLeader(addresses, manageChunkServer, { server, action }, () => true);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new CliError(error.detail || oneLine(error), EXIT_FAILED);
  }
}

async function waitForRegistration(cluster: SelectedCluster, server: number): Promise<void> {
  const reader = new StatusReader(cluster.addresses, 0);
  try {
    for (let waited = 0; waited < REGISTER_TIMEOUT_MS; waited += POLL_MS) {
      const status = await reader.read(STATUS_TIMEOUT_MS);
      if (status && find(status, server)) return;
      await delay(systemClock, POLL_MS);
    }
  } finally {
    reader.close();
  }
  throw new CliError(
    `chunkserver-${server} has not registered: start it with 'holdfast chunkserver --id ${server} ..'`,
    EXIT_FAILED,
  );
}

/** Shows how the data moves until `done`. ^C ends the waiting, not the move. */
async function waitUntil(
  cluster: SelectedCluster,
  server: number,
  flags: ManageFlags,
  done: (status: ClusterStatus, now: number) => boolean,
): Promise<void> {
  const reader = new StatusReader(cluster.addresses, 0);
  let last = '';
  try {
    for (;;) {
      const status = await reader.read(STATUS_TIMEOUT_MS);
      if (status?.leader) {
        if (done(status, systemClock.now())) return;
        const { recovery, pgs } = status;
        const held = find(status, server)?.pgs ?? 0;
        const moving = recovery.pgs > 0 ? `; ${renderRecovery(recovery)}` : '';
        const line = `chunkserver-${server}: holds ${held} of ${pgs.total} PGs, ${pgs.moving} moving${moving}`;
        if (line !== last)
          printEvent(
            flags.json,
            { event: 'progress', server, pgs: held, moving: pgs.moving, recovery },
            line,
          );
        last = line;
      }
      await delay(systemClock, POLL_MS);
    }
  } finally {
    reader.close();
  }
}

/** Alive, with its share, and nothing moves any more. */
function spread(server: number): (status: ClusterStatus, now: number) => boolean {
  let calmSince: number | undefined;
  return (status, now) => {
    const calm =
      status.pgs.moving === 0 && status.pgs.recovering === 0 && status.chunkservers.every((one) => one.alive);
    if (!calm) calmSince = undefined;
    else calmSince ??= now;
    const held = status.chunkservers.filter((one) => !one.draining).map(({ pgs }) => pgs);
    const even = Math.max(...held) - (find(status, server)?.pgs ?? 0) < 2;
    return calmSince !== undefined && now - calmSince >= (even ? SETTLED_MS : UNEVEN_SETTLED_MS);
  };
}

function find(status: ClusterStatus, server: number): ClusterStatus['chunkservers'][number] | undefined {
  return status.chunkservers.find(({ id }) => id === server);
}
