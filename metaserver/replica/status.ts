import type { RaftStatus } from '../raft/node.js';
import type { ReplicaStatus, ServerStatus } from './options.js';
import type { Peer, Peers } from './peers.js';

/** What a replica knows of itself and the others, for people: by numbers of metaservers instead of members' ids. */
export function replicaStatus(known: {
  raft: RaftStatus;
  self: { server: number; member: number };
  peers: Pick<Peers, 'addressOf' | 'connected' | 'serverConnected'>;
  /** Servers as configured; those that are no members are listed too. */
  configured: readonly Peer[];
  serving: boolean;
  problems: string[];
}): ReplicaStatus {
  const { raft, self, peers, configured, serving, problems } = known;
  const { conf } = raft;
  const ownAddress = configured.find(({ id }) => id === self.server)?.address;
  const addressOf = (server: number): string | undefined =>
    server === self.server ? ownAddress : peers.addressOf(server);
  const servers = new Map<number, ServerStatus>();
  for (const { id } of configured) {
    const connected = id === self.server || peers.serverConnected(id);
    servers.set(id, {
      server: id,
      address: addressOf(id) ?? '',
      connected,
      diskUuid: '',
      membership: 'stranger',
    });
  }
  for (const { id, server, diskUuid, address } of conf.roster) {
    const earlier = servers.get(server);
    const connected = id === self.member || peers.connected(id);
    // A server whose lost disk still votes is shown with the disk that it has now.
    if (earlier?.diskUuid && earlier.connected && !connected) continue;
    const peer = raft.peers.find((other) => other.id === id);
    const isVoter = conf.voters.includes(id) || conf.votersOutgoing.includes(id);
    servers.set(server, {
      server,
      address: (server === self.server ? ownAddress : undefined) ?? addressOf(server) ?? address,
      connected,
      diskUuid,
      membership: isVoter ? 'voter' : 'learner',
      ...(peer ? { progress: { match: peer.match, lastActiveMs: peer.lastActiveMs } } : {}),
    });
  }
  const leader = conf.roster.find(({ id }) => id === raft.leader);
  return {
    ...raft,
    server: self.server,
    leaderServer: leader?.server ?? 0,
    leaderAddress: leader && addressOf(leader.server),
    servers: [...servers.values()].sort((a, b) => a.server - b.server),
    serving,
    problems,
  };
}
