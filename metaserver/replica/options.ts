import type { Clock } from '../../common/clock.js';
import type { Disk } from '../../common/disk.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type { RpcDialer } from '../../proto/rpc.js';
import type { RaftStatus } from '../raft/node.js';
import type { RaftConfig } from '../raft/types.js';
import type { Peer } from './peers.js';
import type { StateMachine } from './state-machine.js';

export const DEFAULT_ELECTION_MS = 500;
export const DEFAULT_HEARTBEAT_MS = 100;
const MAX_APPEND_BYTES = 1024 * 1024;
const MAX_INFLIGHT_BYTES = 16 * 1024 * 1024;
const MAX_UNCOMMITTED_BYTES = 64 * 1024 * 1024;

export interface ReplicaOptions<Result> {
  disk: Disk;
  /** Formatted by writeFormat(). */
  dir: string;
  clusterId: string;
  serverId: number;
  /** All servers, this one too. */
  peers: readonly Peer[];
  stateMachine: StateMachine<Result>;
  clock: Clock;
  prng: Prng;
  log: Logger;
  /** The server cannot go on (disk error, state machine failed, broken invariant): the process should end. */
  onFatal(error: unknown): void;
  /** Milliseconds; default 500: an election starts after one to two of them without a leader. */
  electionMs?: number;
  /** Milliseconds; default 100. */
  heartbeatMs?: number;
  /** Log entries, and bytes of them, kept for slow followers. */
  keepEntries?: number;
  keepBytes?: number;
  segmentBytes?: number;
  /** Runs `fn` in a later turn of the event loop; default setImmediate. */
  schedule?(fn: () => void): void;
  /** How the other servers are reached; default gRPC. */
  dial?: RpcDialer;
}

export interface PeerState {
  id: number;
  address: string;
  connected: boolean;
}

export interface ReplicaStatus extends RaftStatus {
  /** host:port; undefined when no leader is known. */
  leaderAddress: string | undefined;
  members: PeerState[];
  /** This server leads and has applied everything acknowledged before its term. */
  serving: boolean;
}

/** The core's settings. */
export function raftConfig(
  options: Pick<ReplicaOptions<never>, 'serverId' | 'electionMs' | 'heartbeatMs'>,
): RaftConfig {
  return {
    id: options.serverId,
    electionMs: options.electionMs ?? DEFAULT_ELECTION_MS,
    heartbeatMs: options.heartbeatMs ?? DEFAULT_HEARTBEAT_MS,
    maxAppendBytes: MAX_APPEND_BYTES,
    maxInflightBytes: MAX_INFLIGHT_BYTES,
    maxUncommittedBytes: MAX_UNCOMMITTED_BYTES,
  };
}
