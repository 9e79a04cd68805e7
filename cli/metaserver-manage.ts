import { Command } from 'commander';
import { delay, systemClock } from '../common/clock.js';
import { type HoldfastError, toHoldfastError } from '../proto/errors.js';
import { AdminServiceDefinition, type MembershipReply } from '../proto/gen/admin.js';
import { RpcClient } from '../proto/rpc.js';
import { clusterFilePath, readClusterFile, SERVERS_MAX } from './cluster-file.js';
import {
  addClusterOptions,
  type ClusterSelection,
  parseAddress,
  parseInteger,
  selectCluster,
} from './cluster-options.js';
import { StatusReader } from './cluster-status.js';
import { CliError, EXIT_FAILED, printEvent } from './output.js';
import { startFurther, stopForGood } from './running-up.js';

interface ManageFlags extends ClusterSelection {
  json?: boolean;
  timeout: number;
}

const POLL_MS = 200;
const CALL_TIMEOUT_MS = 5_000;
const STATUS_TIMEOUT_MS = 2_000;
const DEFAULT_TIMEOUT_S = 300;

/** `holdfast metaserver add`: a further metaserver, which learns everything and then votes. */
export function addCommand(): Command {
  const command = new Command('add')
    .description('add a metaserver: it learns everything from the leader, then it votes')
    .argument(
      '[id=host:port]',
      'a server that was started elsewhere with its own --id and --listen; without it, the running `holdfast up` starts one',
    );
  return options(command).action(async (text: string | undefined, flags: ManageFlags) => {
    const { id, address } = text === undefined ? await startHere(flags) : parseServer(text);
    const { addresses } = await selectCluster(flags);
    const voters = await carryOut(flags, `metaserver-${id}`, addresses, 'is a member already', (client) =>
      client.unary(fullName, methods.addMetaserver, { id, address }, CALL_TIMEOUT_MS),
    );
    printEvent(
      flags.json,
      { event: 'added', server: id, voters },
      `added: metaserver-${id}; ${majority(voters)}`,
    );
  });
}

/** `holdfast metaserver remove`: a metaserver leaves the cluster. */
export function removeCommand(): Command {
  const command = new Command('remove')
    .description('take a metaserver out of the cluster; its data directory is left alone')
    .argument('<id>', 'number of the server');
  return options(command).action(async (text: string, flags: ManageFlags) => {
    const match = /^(?:metaserver-)?(\d{1,2})$/.exec(text);
    if (!match)
      throw new CliError(`'${text}' is no metaserver: give its number, as 'holdfast status' shows it`);
    const id = Number(match[1]);
    const { addresses } = await selectCluster(flags);
    const voters = await carryOut(
      flags,
      `metaserver-${id}`,
      addresses,
      'is no member of the cluster',
      (client) => client.unary(fullName, methods.removeMetaserver, { id }, CALL_TIMEOUT_MS),
    );
    await stopForGood(flags, `metaserver-${id}`);
    printEvent(
      flags.json,
      { event: 'removed', server: id, voters },
      `removed: metaserver-${id}; ${majority(voters)}`,
    );
  });
}

const { fullName, methods } = AdminServiceDefinition;

function options(command: Command): Command {
  command
    .option('--json', 'print one JSON line for each event')
    .option(
      '--timeout <s>',
      'give up waiting after so many seconds; the change itself may still happen',
      parseInteger('--timeout', 1, 86_400),
      DEFAULT_TIMEOUT_S,
    );
  return addClusterOptions(command);
}

function majority(voters: number): string {
  const survives = Math.floor((voters - 1) / 2);
  const even = voters % 2 === 0 ? `, no more than ${voters - 1} would` : '';
  return `${voters} vote, the loss of ${survives} is survived${even}`;
}

/** "4=host:port". @throws CliError */
function parseServer(text: string): { id: number; address: string } {
  const match = /^(\d+)=(.+)$/.exec(text);
  const id = Number(match?.[1]);
  if (!match || id < 1 || id > SERVERS_MAX) {
    throw new CliError(`'${text}' is not id=host:port with an id from 1 to ${SERVERS_MAX}`);
  }
  parseAddress(match[2] as string, text);
  return { id, address: match[2] as string };
}

/** Has the running `up` start a further server. @throws CliError */
async function startHere(flags: ManageFlags): Promise<{ id: number; address: string }> {
  const elsewhere = "start 'holdfast metaserver' elsewhere and give id=host:port";
  const { name, dataDir } = await startFurther(flags, 'metaserver', elsewhere);
  const file = await readClusterFile(clusterFilePath(dataDir));
  const server = file?.metaservers.find(({ id }) => `metaserver-${id}` === name);
  if (!server) throw new CliError(`${name} is not in ${clusterFilePath(dataDir)}`, EXIT_FAILED);
  return { id: server.id, address: `${server.host}:${server.port}` };
}

/**
 * Asks whoever leads, again and again, until the change is done; a new leader is asked anew.
 * @param nothingToDo what is wrong when it is done already
 * @returns the number of voters then
 * @throws CliError with what the leader refused, or when the time is over
 */
async function carryOut(
  flags: ManageFlags,
  name: string,
  addresses: readonly string[],
  nothingToDo: string,
  ask: (client: RpcClient) => Promise<MembershipReply>,
): Promise<number> {
  const until = systemClock.now() + flags.timeout * 1000;
  const clients = (await membersOf(addresses)).map((address) => new RpcClient(address));
  let last = 'no metaserver leads';
  try {
    for (let asked = 0; ; asked++) {
      const reply = await askLeader(clients, ask);
      if (reply?.done && asked === 0) throw new CliError(`${name} ${nothingToDo}`, EXIT_FAILED);
      if (reply?.done) return reply.voters;
      const line = reply ? describe(reply) : 'no metaserver leads';
      if (line !== last) {
        const { stage, matchIndex, commitIndex } = reply ?? {
          stage: 'waiting',
          matchIndex: 0,
          commitIndex: 0,
        };
        printEvent(
          flags.json,
          { event: 'progress', name, stage, matchIndex, commitIndex },
          `${name}: ${line}`,
        );
      }
      last = line;
      if (systemClock.now() > until) {
        throw new CliError(`${name}: not done within ${flags.timeout} s: ${line}`, EXIT_FAILED);
      }
      await delay(systemClock, POLL_MS);
    }
  } finally {
    for (const client of clients) client.close();
  }
}

/** With the servers that were not named: one of them may lead. */
async function membersOf(addresses: readonly string[]): Promise<string[]> {
  const reader = new StatusReader(addresses, 0);
  try {
    return await reader.members(STATUS_TIMEOUT_MS);
  } finally {
    reader.close();
  }
}

function describe({ stage, matchIndex, commitIndex }: MembershipReply): string {
  switch (stage) {
    case 'waiting':
      return 'waiting for the server to be there';
    case 'learning':
      return `learning, has ${matchIndex} of ${commitIndex} log entries`;
    case 'voting':
      return 'the members agree that it votes';
    case 'transferring':
      return 'it leads: another one takes over';
    default:
      return 'the members agree that it leaves';
  }
}

/** @returns undefined when nobody leads just now. @throws CliError with the leader's refusal */
async function askLeader(
  clients: readonly RpcClient[],
  ask: (client: RpcClient) => Promise<MembershipReply>,
): Promise<MembershipReply | undefined> {
  const answers = await Promise.all(
    clients.map((client) => ask(client).catch((error: unknown): HoldfastError => toHoldfastError(error))),
  );
  for (const answer of answers) {
    if (!(answer instanceof Error)) return answer;
    if (answer.errorName === 'EINVAL' || answer.errorName === 'EBUSY') {
      throw new CliError(answer.detail || answer.message, EXIT_FAILED);
    }
  }
  return undefined;
}
