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
/** Many times what a program takes between two calls that wait for the log, so that their entries gather; below a heartbeat. */
const DEFER_MS = 80;
/** What callers wait when a follower stops answering: well above what a commit takes, well below what anybody notices. */
const PATIENCE_MS = 20;
const MAX_APPEND_BYTES = 1024 * 1024;
const MAX_INFLIGHT_BYTES = 16 * 1024 * 1024;
const MAX_UNCOMMITTED_BYTES = 64 * 1024 * 1024;

export interface ReplicaOptions<Result> {
  disk: Disk;
  /** Formatted by writeFormat(). */
  dir: string;
  clusterId: string;
  serverId: number;
  /** All servers as configured, this one too: they found a new cluster; an existing one knows its members itself. */
  peers: readonly Peer[];
  /** host:port where the others shall look for this server from now on; default: where they found it. */
  address?: string;
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

/** One metaserver as this server sees it. */
export interface ServerStatus {
  server: number;
  /** host:port; empty: unknown. */
  address: string;
  connected: boolean;
  /** The disk with which it is a member; empty when it is none. */
  diskUuid: string;
  /** stranger: not, or not yet, a member of the configuration. */
  membership: 'voter' | 'learner' | 'stranger';
  /** Known to be in its log, and when it was last heard (ms); undefined unless this server leads. */
  progress?: { match: number; lastActiveMs: number };
}

export interface ReplicaStatus extends RaftStatus {
  /** Numbers of metaservers, where RaftStatus has members' ids; leader 0: unknown. */
  server: number;
  leaderServer: number;
  /** host:port; undefined when no leader is known. */
  leaderAddress: string | undefined;
  servers: ServerStatus[];
  /** This server leads and has applied everything acknowledged before its term. */
  serving: boolean;
  /** What keeps this server from taking part, a line each. */
  problems: string[];
}

/** The core's settings. */
export function raftConfig(
  member: number,
  options: Pick<ReplicaOptions<never>, 'electionMs' | 'heartbeatMs'>,
): RaftConfig {
  return {
    id: member,
    electionMs: options.electionMs ?? DEFAULT_ELECTION_MS,
    heartbeatMs: options.heartbeatMs ?? DEFAULT_HEARTBEAT_MS,
    deferMs: DEFER_MS,
    patienceMs: PATIENCE_MS,
    maxAppendBytes: MAX_APPEND_BYTES,
    maxInflightBytes: MAX_INFLIGHT_BYTES,
    maxUncommittedBytes: MAX_UNCOMMITTED_BYTES,
  };
}
