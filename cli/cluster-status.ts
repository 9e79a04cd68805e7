import { AdminServiceDefinition, type StatusReply } from '../proto/gen/admin.js';
import { type ClusterMap, ReplicaState } from '../proto/gen/cluster.js';
import { RpcClient } from '../proto/rpc.js';

/** How far replicas are that copy what they lack. */
export interface RecoveryStatus {
  /** PGs with a replica that copies, or waits to. */
  pgs: number;
  doneBytes: number;
  leftBytes: number;
  bytesPerSecond: number;
  /** Null while nothing is copied. */
  etaSeconds: number | null;
}

/** The state of a cluster as its metaservers tell it, in the shape that `holdfast status --json` prints. */
export interface ClusterStatus {
  /** A leader is known, all configured servers are alive, and every PG has all its replicas in-sync. */
  healthy: boolean;
  /** What keeps it from being healthy, a line each. */
  problems: string[];
  /** What an operator should know and need not act upon, a line each. */
  notes: string[];
  clusterId: string;
  leader: { id: number; address: string } | null;
  term: number;
  metaservers: {
    id: number;
    name: string;
    address: string;
    alive: boolean;
    role: string;
    term: number;
    commitIndex: number;
    appliedIndex: number;
  }[];
  chunkservers: {
    id: number;
    name: string;
    address: string;
    alive: boolean;
    capacityBytes: number;
    usedBytes: number;
    freeBytes: number;
    pgsInSync: number;
    pgsRecovering: number;
    pgsPrimary: number;
    recoveryLeftBytes: number;
    /** Damaged or different copies of chunks since each server started. */
    damageFound: number;
    damageRepaired: number;
    recovery: RecoveryStatus;
    /** PGs of which it holds a replica, in any state. */
    pgs: number;
    /** Its PGs are being moved to other servers. */
    draining: boolean;
  }[];
  /** Of all servers together. */
  recovery: RecoveryStatus;
  pgs: {
    total: number;
    inSync: number;
    recovering: number;
    degraded: number;
    unavailable: number;
    /** On the way from one server to another; such a PG has all its copies meanwhile. */
    moving: number;
  };
  capacity: { totalBytes: number; freeBytes: number; usedBytes: number; inodesUsed: number; orphans: number };
  mounts: {
    session: number;
    hostname: string;
    mountPoint: string;
    connected: boolean;
    idleMs: number;
    openFiles: number;
  }[];
}

/** What is told of a cluster that does not answer. */
export const UNANSWERED: Pick<ClusterStatus, 'healthy' | 'problems' | 'leader'> = {
  healthy: false,
  problems: ['no metaserver answers'],
  leader: null,
};

const { fullName: ADMIN, methods: ADMIN_METHODS } = AdminServiceDefinition;

/** Asks every metaserver at once; who does not answer within the time counts as not alive. */
export class StatusReader {
  #clients: RpcClient[];
  #expectedChunkservers: number;

  /** @param expectedChunkservers as configured; 0: as the cluster itself says */
  constructor(addresses: readonly string[], expectedChunkservers: number) {
    this.#clients = addresses.map((address) => new RpcClient(address));
    this.#expectedChunkservers = expectedChunkservers;
  }

  /** Other servers are configured from now on. */
  expect(addresses: readonly string[], chunkservers: number): void {
    this.#expectedChunkservers = chunkservers;
    const [kept, gone] = [new Map<string, RpcClient>(), new Map<string, RpcClient>()];
    for (const client of this.#clients)
      (addresses.includes(client.address) ? kept : gone).set(client.address, client);
    this.#clients = addresses.map((address) => kept.get(address) ?? new RpcClient(address));
    for (const client of gone.values()) client.close();
  }

  /** @returns undefined when no metaserver answered */
  async read(timeoutMs: number): Promise<ClusterStatus | undefined> {
    return mergeStatus(await this.#ask(timeoutMs), this.#expectedChunkservers);
  }

  /** The cluster map, as the leader has it. @returns undefined when none answered */
  async readMap(timeoutMs: number): Promise<ClusterMap | undefined> {
    return leaderOf(repliesOf(await this.#ask(timeoutMs)))?.map;
  }

  /** Addresses of what was named, and of all other members. */
  async members(timeoutMs: number): Promise<string[]> {
    return (await this.#ask(timeoutMs)).map(({ address }) => address);
  }

  /** What is said of the cluster does not depend on which of its members were named. */
  async #ask(timeoutMs: number): Promise<Answer[]> {
    const answers = await askAll(this.#clients, timeoutMs);
    // One that does not lead knows who may; the leader knows all.
    for (let round = 0; round < 2; round++) {
      const others = unnamedMembers(answers).map((address) => new RpcClient(address));
      try {
        answers.push(...(await askAll(others, timeoutMs)));
      } finally {
        for (const client of others) client.close();
      }
    }
    return answers;
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }
}

/** What a metaserver said of itself and, where it leads, of the cluster; undefined: nothing. */
interface Answer {
  address: string;
  reply: StatusReply | undefined;
}

function askAll(clients: readonly RpcClient[], timeoutMs: number): Promise<Answer[]> {
  return Promise.all(
    clients.map((client) =>
      client.unary(ADMIN, ADMIN_METHODS.status, {}, timeoutMs).then(
        (reply) => ({ address: client.address, reply }),
        () => ({ address: client.address, reply: undefined }),
      ),
    ),
  );
}

function repliesOf(answers: readonly Answer[]): StatusReply[] {
  return answers.flatMap(({ reply }) => reply ?? []);
}

/** Addresses of members that were not asked: of those that the leader knows or, without one, that the others do. */
export function unnamedMembers(answers: readonly Answer[]): string[] {
  const replies = repliesOf(answers);
  const asked = new Set(answers.map(({ address }) => address));
  // A server may have been named in another way than the others call it.
  const answered = new Set(replies.map(({ serverId }) => serverId));
  const leader = leaderOf(replies);
  const others = (leader ? [leader] : replies)
    .flatMap(({ metaservers }) => metaservers)
    // Without a disk it is no member: one that was removed, or has yet to be taken in.
    .filter(({ id, address, diskUuid }) => diskUuid !== '' && !asked.has(address) && !answered.has(id));
  return [...new Set(others.map(({ address }) => address))];
}

function leaderOf(replies: readonly StatusReply[]): StatusReply | undefined {
  return replies
    .filter((reply) => reply.role === 'leader' && reply.map !== undefined)
    .sort((a, b) => b.term - a.term)[0];
}

/** One picture out of the servers' answers. The leader of the highest term speaks for the cluster. */
export function mergeStatus(
  answers: readonly Answer[],
  expectedChunkservers: number,
): ClusterStatus | undefined {
  const replies = repliesOf(answers);
  if (replies.length === 0) return undefined;
  const leader = leaderOf(replies);
  const metaservers = mergeMetaservers(answers);
  const chunkservers = (leader?.chunkservers ?? []).map((one) => {
    const { recoveryDoneBytes = 0, recoveryBytesPerSecond = 0, scrub, ...rest } = one;
    const { pgsRecovering, recoveryLeftBytes } = one;
    const recovery = recoveryOf(pgsRecovering, recoveryDoneBytes, recoveryLeftBytes, recoveryBytesPerSecond);
    const held = leader?.map?.pgs.filter((pg) => pg.replicas.some(({ server }) => server === one.id)) ?? [];
    const draining = one.draining ?? false;
    const damage = { damageFound: scrub?.found ?? 0, damageRepaired: scrub?.repaired ?? 0 };
    return { ...rest, ...damage, name: `chunkserver-${one.id}`, recovery, pgs: held.length, draining };
  });
  const expected = expectedChunkservers || leader?.configuredChunkservers || 0;
  const pgs = countPgs(leader?.map);
  const problems: string[] = [];
  if (!leader) problems.push('no leader is known');
  for (const one of metaservers) if (!one.alive) problems.push(`${one.name} does not answer`);
  problems.push(...notVoting(leader), ...replies.flatMap((reply) => reply.problems));
  for (const one of chunkservers) if (!one.alive) problems.push(`${one.name} is not connected`);
  if (leader && chunkservers.length < expected)
    problems.push(`${expected - chunkservers.length} chunkserver(s) never registered`);
  if (leader && pgs.total === 0) problems.push('no data is placed yet');
  if (pgs.inSync < pgs.total)
    problems.push(`${pgs.total - pgs.inSync} of ${pgs.total} PGs lack an in-sync replica`);
  problems.push(...missingDisks(leader?.map));
  return {
    healthy: problems.length === 0,
    problems,
    notes: replies.flatMap((reply) => reply.notes),
    clusterId: replies[0]?.clusterId ?? '',
    leader: leader ? { id: leader.serverId, address: leader.leaderAddress } : null,
    term: Math.max(...replies.map((reply) => reply.term)),
    metaservers,
    chunkservers,
    recovery: totalRecovery(chunkservers, pgs.recovering),
    pgs,
    capacity: {
      totalBytes: leader?.totalBytes ?? 0,
      freeBytes: leader?.freeBytes ?? 0,
      usedBytes: Math.max(0, (leader?.totalBytes ?? 0) - (leader?.freeBytes ?? 0)),
      inodesUsed: leader?.inodesUsed ?? 0,
      orphans: leader?.orphans ?? 0,
    },
    mounts: (leader?.sessions ?? []).map(({ id, ...rest }) => ({ session: id, ...rest })),
  };
}

function recoveryOf(
  pgs: number,
  doneBytes: number,
  leftBytes: number,
  bytesPerSecond: number,
): RecoveryStatus {
  const etaSeconds = bytesPerSecond > 0 ? Math.ceil(leftBytes / bytesPerSecond) : null;
  return { pgs, doneBytes, leftBytes, bytesPerSecond, etaSeconds };
}

/** Servers copy at the same time: the last one to be ready decides. */
function totalRecovery(servers: ClusterStatus['chunkservers'], pgs: number): RecoveryStatus {
  const total = { pgs, doneBytes: 0, leftBytes: 0, bytesPerSecond: 0, etaSeconds: null as number | null };
  for (const { recovery } of servers) {
    total.doneBytes += recovery.doneBytes;
    total.leftBytes += recovery.leftBytes;
    total.bytesPerSecond += recovery.bytesPerSecond;
    if (recovery.etaSeconds !== null) total.etaSeconds = Math.max(total.etaSeconds ?? 0, recovery.etaSeconds);
  }
  return total;
}

/** Metaservers that are being filled, or wait to be taken in: until they vote, one failure fewer is survived. */
function notVoting(leader: StatusReply | undefined): string[] {
  if (!leader) return [];
  const { commitIndex } = leader;
  return leader.metaservers
    .filter(({ alive, role }) => alive && (role === 'learner' || role === 'stranger'))
    .map(({ id, role, matchIndex }) =>
      role === 'learner'
        ? `metaserver-${id} is being filled and does not vote yet (it has ${matchIndex} of ${commitIndex} log entries)`
        : `metaserver-${id} is no member of the cluster`,
    );
}

function mergeMetaservers(answers: readonly Answer[]): ClusterStatus['metaservers'] {
  const byAddress = new Map<string, number>();
  for (const { reply } of answers)
    for (const one of reply?.metaservers ?? []) byAddress.set(one.address, one.id);
  return answers
    .map(({ address, reply }, index) => {
      const id = reply?.serverId ?? byAddress.get(address) ?? index + 1;
      return {
        id,
        name: `metaserver-${id}`,
        address,
        alive: reply !== undefined,
        role: reply?.role ?? 'unknown',
        term: reply?.term ?? 0,
        commitIndex: reply?.commitIndex ?? 0,
        appliedIndex: reply?.appliedIndex ?? 0,
      };
    })
    .sort((a, b) => a.id - b.id);
}

const { REPLICA_IN_SYNC, REPLICA_RECOVERING } = ReplicaState;

function countPgs(map: ClusterMap | undefined): ClusterStatus['pgs'] {
  const { pgs = [], replicas = 0, servers = [] } = map ?? {};
  const alive = new Set(servers.filter((server) => server.alive).map((server) => server.id));
  const count = { total: pgs.length, inSync: 0, recovering: 0, degraded: 0, unavailable: 0, moving: 0 };
  for (const pg of pgs) {
    const inSync = pg.replicas.filter((one) => one.state === REPLICA_IN_SYNC);
    if (inSync.length >= Math.min(replicas, pg.replicas.length) && pg.replicas.length >= replicas)
      count.inSync++;
    else count.degraded++;
    if (pg.replicas.some((one) => one.state === REPLICA_RECOVERING)) count.recovering++;
    if (pg.replicas.some((one) => one.leaving)) count.moving++;
    if (!inSync.some((one) => alive.has(one.server))) count.unavailable++;
  }
  return count;
}

/** Which disks are missed by PGs of which nobody else has everything that was acknowledged, a line for each server. */
function missingDisks(map: ClusterMap | undefined): string[] {
  const missed = new Map<string, number>();
  for (const { replicas } of map?.pgs ?? []) {
    if (replicas.some((one) => one.state === REPLICA_IN_SYNC)) continue;
    const wanted = replicas.filter((one) => one.wholeDisk);
    const text = wanted.map((one) => `disk ${one.wholeDisk} of chunkserver-${one.server}`).join(' or ');
    missed.set(text, (missed.get(text) ?? 0) + 1);
  }
  return [...missed].map(
    ([text, pgs]) =>
      `${pgs} PGs are unavailable: only ${text} holds all that was acknowledged; bring it back, or see 'holdfast pg --help'`,
  );
}
