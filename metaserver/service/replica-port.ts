import type { Clock } from '../../common/clock.js';
import type { CommandResult } from '../../proto/gen/meta.js';
import type { ServerStatus } from '../replica/options.js';
import type { Replica } from '../replica/replica.js';
import type { MemberStatus, MetaReplica, ReplicaStatus } from './ports.js';

/** A member from which the leader heard nothing for so long does not count as alive, though its connection stands. */
export const MEMBER_SILENCE_MS = 1500;

/** The replica as the services see it. */
export function replicaPort(replica: Replica<CommandResult>, clock: Clock): MetaReplica {
  return {
    propose: (command) => replica.propose(command),
    canReadNow: () => replica.canReadNow(),
    readBarrier: () => replica.readBarrier(),
    status: () => statusOf(replica, clock.now()),
    onLeadership: (listener) => replica.onLeadership(listener),
    onApplied: (listener) => replica.onApplied(listener),
    transferLeader: (to) => replica.transferLeader(to),
    addServer: (server, address) => replica.membership.add(server, address),
    removeServer: (server) => replica.membership.remove(server),
  };
}

function statusOf(replica: Replica<CommandResult>, now: number): ReplicaStatus {
  const status = replica.status();
  const role = status.role === 'pre-candidate' ? 'candidate' : status.role;
  const members = status.servers.map(
    ({ server: id, address, connected, diskUuid, membership, progress }): MemberStatus => {
      const one = { id, address, diskUuid };
      if (id === status.server)
        return { ...one, alive: true, role: roleOf(role, membership), matchIndex: status.persisted };
      const alive = connected && (!progress || now - progress.lastActiveMs < MEMBER_SILENCE_MS);
      const other = id === status.leaderServer ? 'leader' : 'follower';
      return {
        ...one,
        alive,
        role: alive ? roleOf(other, membership) : 'unknown',
        matchIndex: progress?.match ?? 0,
      };
    },
  );
  return {
    id: status.server,
    role,
    term: status.term,
    leader: status.leaderServer,
    leaderAddress: status.leaderAddress ?? '',
    commitIndex: status.commit,
    appliedIndex: status.applied,
    firstIndex: status.firstIndex,
    members,
    problems: status.problems,
  };
}

/** A server that does not vote is shown as what it is. */
function roleOf(role: ReplicaStatus['role'], membership: ServerStatus['membership']): MemberStatus['role'] {
  if (membership === 'voter' || role === 'leader') return role;
  return membership;
}
