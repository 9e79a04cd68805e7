import { Command } from 'commander';
import {
  type Holding,
  isServed,
  missedDisks,
  type Survivor,
  survivorsOf,
} from '../metaserver/cluster/pg-loss.js';
import { HoldfastError } from '../proto/errors.js';
import { AdminServiceDefinition } from '../proto/gen/admin.js';
import {
  type ChunkServerInfo,
  type ClusterMap,
  type Pg,
  type Replica,
  ReplicaState,
} from '../proto/gen/cluster.js';
import type { PgChoice } from '../proto/gen/meta.js';
import { addClusterOptions, type ClusterSelection, selectCluster } from './cluster-options.js';
import { StatusReader } from './cluster-status.js';
import { callLeader } from './leader-stream.js';
import { CliError, EXIT_FAILED, EXIT_USAGE, formatTable, oneLine, printJson, printLine } from './output.js';

interface ListFlags extends ClusterSelection {
  problems?: boolean;
  json?: boolean;
}

interface LossFlags extends ClusterSelection {
  server?: string;
  yes?: boolean;
  json?: boolean;
}

const STATUS_TIMEOUT_MS = 5_000;
const { REPLICA_RECOVERING, REPLICA_IN_SYNC } = ReplicaState;

/** `holdfast pg`: placement groups one by one, and what to do when all that holds one is gone for ever. */
export function pgCommand(): Command {
  return new Command('pg')
    .description('placement groups: where each one is, and what to do when its data is gone for ever')
    .addCommand(listCommand())
    .addCommand(acceptLossCommand());
}

function listCommand(): Command {
  const command = new Command('list')
    .description('show every PG: its primary, its replicas, and what one that answers nothing waits for')
    .option('--problems', 'only those that lack an in-sync replica')
    .option('--json', 'print one JSON list');
  return addClusterOptions(command).action(async (flags: ListFlags) => {
    const map = await readMap(flags);
    const rows = map.pgs
      .map((pg) => describe(pg, map))
      .filter((row) => !flags.problems || row.state !== 'in-sync');
    if (flags.json) printJson(rows);
    else printLine(rows.length === 0 ? 'every PG is in-sync' : render(rows));
  });
}

function acceptLossCommand(): Command {
  const command = new Command('accept-loss')
    .description(
      'let PGs go on without the disks that alone hold all of their data: what only those hold is lost for ever',
    )
    .argument('<pg...>', "numbers of the PGs, as 'holdfast pg list --problems' shows them")
    .option('--server <id>', 'chunkserver that takes over (default: the one that has most)')
    .option('--yes', 'do it; without this it is only said what may be lost')
    .option('--json', 'print one JSON object');
  return addClusterOptions(command).action(async (texts: string[], flags: LossFlags) => {
    const pgs = texts.map((text) => parseId(text, 'PG'));
    const server = flags.server === undefined ? undefined : parseId(flags.server, 'chunkserver');
    const map = await readMap(flags);
    const losses = pgs.map((id) => lossOf(map, id, server));
    if (!flags.json) for (const loss of losses) printLine(loss.text);
    if (!flags.yes) throw new CliError('nothing was done: add --yes to accept this', EXIT_USAGE, { losses });
    const choices = await accept(flags, pgs, server);
    if (flags.json) printJson({ accepted: choices.map(({ pg, server: takes }) => ({ pg, server: takes })) });
    else for (const { pg, server: takes } of choices) printLine(`PG ${pg}: chunkserver-${takes} takes over`);
  });
}

/** @throws CliError */
function parseId(text: string, what: string): number {
  const match = /^(?:chunkserver-)?(\d{1,5})$/.exec(text);
  if (!match) throw new CliError(`'${text}' is no ${what}: give its number`);
  return Number(match[1]);
}

async function readMap(flags: ClusterSelection): Promise<ClusterMap> {
  const { addresses } = await selectCluster(flags);
  const reader = new StatusReader(addresses, 0);
  try {
    const map = await reader.readMap(STATUS_TIMEOUT_MS);
    if (map) return map;
  } finally {
    reader.close();
  }
  throw new CliError(`no metaserver leads (${addresses.join(', ')}): is the cluster running?`, EXIT_FAILED);
}

export interface PgRow {
  pg: number;
  epoch: number;
  /** 'unavailable': nothing is answered. */
  state: 'in-sync' | 'degraded' | 'unavailable';
  primary: number | null;
  replicas: { server: number; state: 'in-sync' | 'recovering' | 'out'; alive: boolean }[];
  /** Of one that is unavailable: the disks that hold everything, .. */
  waitsFor: { server: number; disk: string }[];
  /** .. and what living replicas have, the best first. */
  survivors: Survivor[];
}

type Servers = ReadonlyMap<number, ChunkServerInfo>;

/** One PG as `pg list --json` prints it. */
export function describe(pg: Pg, { servers: infos, replicas: wanted }: ClusterMap): PgRow {
  const servers: Servers = new Map(infos.map((info) => [info.id, info]));
  const served = isServed(pg, servers);
  const replicas = pg.replicas.map((one) => ({
    server: one.server,
    state: stateName(one),
    alive: servers.get(one.server)?.alive ?? false,
  }));
  const whole = replicas.every((one) => one.state === 'in-sync') && replicas.length >= wanted;
  return {
    ...{ pg: pg.id, epoch: pg.epoch, replicas },
    state: served ? (whole ? 'in-sync' : 'degraded') : 'unavailable',
    primary: served ? (replicas.find((one) => one.state === 'in-sync')?.server ?? null) : null,
    waitsFor: served ? [] : missedDisks(pg, servers),
    survivors: served ? [] : survivorsOf(pg, servers),
  };
}

function stateName({ state }: Replica): PgRow['replicas'][number]['state'] {
  if (state === REPLICA_IN_SYNC) return 'in-sync';
  return state === REPLICA_RECOVERING ? 'recovering' : 'out';
}

function render(rows: PgRow[]): string {
  const cells = rows.map((row) => {
    const replicas = row.replicas.map(
      ({ server, state, alive }) => `${server} ${state}${alive ? '' : ' (down)'}`,
    );
    const waits = row.waitsFor.map(({ server, disk }) => `disk ${disk} of chunkserver-${server}`);
    const note = row.state === 'unavailable' ? `waits for ${waits.join(' or ') || 'its servers'}` : '';
    const primary = row.primary === null ? '-' : String(row.primary);
    return [String(row.pg), String(row.epoch), row.state, primary, replicas.join(', '), note];
  });
  return formatTable([['PG', 'EPOCH', 'STATE', 'PRIMARY', 'REPLICAS', ''], ...cells]);
}

/** What an operator is asked to accept. */
export interface Loss extends Survivor {
  pg: number;
  text: string;
}

/** @throws CliError when there is nothing to accept, or nobody to take over */
export function lossOf(map: ClusterMap, id: number, server: number | undefined): Loss {
  const pg = map.pgs[id];
  if (!pg) throw new CliError(`there is no PG ${id}`);
  const { state, survivors, waitsFor } = describe(pg, map);
  if (state !== 'unavailable')
    throw new CliError(`PG ${id} is served by a replica that has everything: nothing is lost`);
  const chosen = server === undefined ? survivors[0] : survivors.find((one) => one.server === server);
  if (!chosen)
    throw new CliError(`PG ${id}: ${server ? `chunkserver-${server} is no` : 'there is no'} living replica`);
  const gone = waitsFor.map((one) => `disk ${one.disk} of chunkserver-${one.server}`).join(' and ');
  const given = gone ? `; ${gone} is given up, and copied over should it come back` : '';
  return { pg: id, ...chosen, text: `PG ${id}: chunkserver-${chosen.server} ${LOST[chosen.holds]}${given}` };
}

const LOST: Record<Holding, string> = {
  whole: 'has everything that was acknowledged and synced, and takes over',
  stale:
    'takes over with what it had when it was dropped, or has copied since: later writes are lost, synced ones too',
  empty: 'takes over with an empty disk: everything in the PG is lost',
};

/** @throws CliError with what the leader answered */
async function accept(flags: LossFlags, pgs: number[], server: number | undefined): Promise<PgChoice[]> {
  const { addresses } = await selectCluster(flags);
  let choices: PgChoice[] = [];
  try {
    const { acceptLoss } = AdminServiceDefinition.methods;
    await callLeader(addresses, acceptLoss, { pgs, server }, (reply) => {
      choices = reply.choices;
      return true;
    });
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new CliError(error.detail || oneLine(error), EXIT_FAILED);
  }
  return choices;
}
