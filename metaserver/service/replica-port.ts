import type { Clock } from '../../common/clock.js';
import type { CommandResult } from '../../proto/gen/meta.js';
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
  };
}

function statusOf(replica: Replica<CommandResult>, now: number): ReplicaStatus {
  const status = replica.status();
  const role = status.role === 'pre-candidate' ? 'candidate' : status.role;
  const roleOf = (id: number, alive: boolean): MemberStatus['role'] => {
    if (!alive) return 'unknown';
    if (id === status.leader) return 'leader';
    return status.conf.learners.includes(id) ? 'learner' : 'follower';
  };
  const members = status.members.map(({ id, address, connected }): MemberStatus => {
    if (id === status.id) return { id, address, alive: true, role, matchIndex: status.persisted };
    const peer = role === 'leader' ? status.peers.find((other) => other.id === id) : undefined;
    const alive = connected && (!peer || now - peer.lastActiveMs < MEMBER_SILENCE_MS);
    return { id, address, alive, role: roleOf(id, alive), matchIndex: peer?.match ?? 0 };
  });
  return {
    id: status.id,
    role,
    term: status.term,
    leader: status.leader,
    leaderAddress: status.leaderAddress ?? '',
    commitIndex: status.commit,
    appliedIndex: status.applied,
    firstIndex: status.firstIndex,
    members,
  };
}
