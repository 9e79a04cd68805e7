import { assert } from '../../common/assert.js';
import type { Prng } from '../../common/prng.js';
import { RaftEntryType, type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';
import { ConfHistory, confProblem, isJoint, isVoter, members } from './confchange.js';
import { deferralDeadlineMs } from './deferral.js';
import { campaign, handleTimeoutNow, handleVoteRequest, handleVoteResponse } from './election.js';
import { handleFromLeader } from './follower.js';
import { RaftLog } from './log.js';
import { isFromLeader, isVoteRequest, makeMessage } from './messages.js';
import { Progress } from './progress.js';
import { quorumValue } from './quorum.js';
import { leaseDurationMs, ReadOnly } from './read-only.js';
import {
  broadcastHeartbeat,
  handleAppendResponse,
  handleHeartbeatResponse,
  maybeCommit,
} from './replication.js';
import type { HardState, LogReader, RaftConfig, RaftConfState, RaftEntry, ReadState, Role } from './types.js';

/** Default of RaftConfig.leaseMs, in heartbeats. */
const LEASE_HEARTBEATS = 3;
/** Who knows of no leader (its connection broke, or this server just started) campaigns this long after the lease it granted, ... */
const LEADERLESS_CAMPAIGN_MIN_MS = 10;
/** ... plus a random share of this. */
const LEADERLESS_CAMPAIGN_SPREAD_MS = 50;
/** A campaign that is lost then is repeated after 1 .. this many heartbeats. */
const LEADERLESS_RETRY_HEARTBEATS = 4;

export interface InitialState {
  hardState: HardState;
  /** The configuration that belongs to `applied`. */
  conf: RaftConfState;
  applied: number;
}

/**
 * The state of one server and its changes of role. The messages' handlers are functions over it, by concept:
 * election, follower, replication. Everything is synchronous; time is what the last caller said it is.
 */
export class Raft {
  readonly id: number;
  readonly config: RaftConfig;
  readonly leaseMs: number;
  readonly log: RaftLog;
  readonly confs: ConfHistory;
  readonly #prng: Prng;

  term: number;
  /** Voted for in `term`; 0: nobody. */
  vote: number;
  role: Role = 'follower';
  /** Leader of `term`; 0: unknown. */
  leader = 0;
  /** Never goes back; NaN before the first call. */
  nowMs = Number.NaN;

  // Followers and candidates.
  electionDeadlineMs = 0;
  /** When a leader was last heard: the start of the promise not to help another (see `promised`). */
  lastLeaderContactMs = 0;
  readonly brokenPeers = new Set<number>();
  /** No leader is known since the start, or the last one's connection broke: campaigns follow quickly. */
  leaderMissing = false;
  readonly votes = new Map<number, boolean>();

  // Leaders.
  /** All members but this server; the first ones get entries first (isDeferred). */
  readonly peers = new Map<number, Progress>();
  heartbeatDeadlineMs = 0;
  /** Index of the first entry of this leadership. */
  firstOwnIndex = 0;
  reads = new ReadOnly();
  /** Target of a leadership transfer; 0: none. */
  transferee = 0;
  transferDeadlineMs = 0;
  /**
   * A TIMEOUT_NOW is out: its receiver may win votes of those who granted the lease, at any time in this
   * term.
   */
  leaseForfeited = false;
  /** Sizes of proposals that are not committed: (last index, bytes). */
  uncommitted: { last: number; bytes: number }[] = [];
  uncommittedBytes = 0;
  /** Something should be committed by then; Infinity: everything is. */
  commitDueMs = Number.POSITIVE_INFINITY;
  /** Something happened that may allow entries, commit indices or a heartbeat round to be sent. */
  replicationDue = false;

  // Output.
  messages: RaftMessage[] = [];
  messagesAfterPersist: RaftMessage[] = [];
  readStates: ReadState[] = [];

  constructor(config: RaftConfig, reader: LogReader, prng: Prng, initial: InitialState) {
    assert(
      config.id >= 1 && config.heartbeatMs > 0 && config.electionMs > config.heartbeatMs,
      'usable settings',
    );
    this.id = config.id;
    this.config = config;
    this.leaseMs = Math.min(config.leaseMs ?? LEASE_HEARTBEATS * config.heartbeatMs, config.electionMs);
    this.log = new RaftLog(reader, initial.hardState.commit, initial.applied);
    this.#prng = prng;
    this.term = initial.hardState.term;
    this.vote = initial.hardState.vote;
    assert(this.log.lastTerm() <= this.term, 'the term is persisted with or before its entries');
    this.confs = new ConfHistory(initial.applied, initial.conf);
    this.log.scan(initial.applied, (entries) => this.confs.append(entries));
    this.confs.commit(this.log.committed);
  }

  get conf(): RaftConfState {
    return this.confs.active;
  }

  /**
   * True when this server may become leader. One that is being removed must be able to, until it knows the
   * removal committed: its log may be the only one complete enough for the old majority (thesis, section
   * 4.2.2).
   */
  get promotable(): boolean {
    return this.confs.mayLead(this.id);
  }

  /** See RaftNode.found. */
  found(conf: RaftConfState): void {
    assert(this.confs.activeIndex === 0 && members(this.conf).length === 0, 'a cluster is founded once');
    assert(confProblem(conf) === undefined && !isJoint(conf), 'a valid first configuration');
    this.confs.restore(0, conf);
  }

  /** Takes notice of the time. The first call is the start of this server. */
  advanceTo(nowMs: number): void {
    if (!Number.isNaN(this.nowMs)) {
      if (nowMs > this.nowMs) this.nowMs = nowMs;
      return;
    }
    this.nowMs = nowMs;
    // Before a restart it may have granted a lease up to this moment.
    this.lastLeaderContactMs = nowMs;
    this.resetElectionDeadline();
    // A leader that works is heard before that; and where its connection here does not stand yet, its voters refuse.
    if (this.promotable) this.#missLeader();
    if (this.#hasNoRival()) this.electionDeadlineMs = nowMs;
  }

  /**
   * True when this server is the only voter, and nobody else leads. A leader that removes itself may still
   * read under the lease that the last voter granted; whoever voted for itself, or for nobody ever, has
   * granted none since.
   */
  #hasNoRival(): boolean {
    const { voters, votersOutgoing } = this.conf;
    const isAlone = voters.length === 1 && voters[0] === this.id && votersOutgoing.length === 0;
    return isAlone && (this.term === 0 || this.vote === this.id);
  }

  /**
   * True while this server keeps its promise to the leader: it grants no vote and no pre-vote, whoever asks.
   * The lease part holds the leader's reads together and depends on nothing but time: not on the term, nor on
   * the connection. The rest of the election time-out only protects a working leader from candidates that
   * lost their own connection.
   */
  promised(): boolean {
    if (this.role === 'leader') return true;
    const connected = this.leader !== 0 && !this.brokenPeers.has(this.leader);
    const span = connected ? this.config.electionMs : this.leaseMs;
    return this.nowMs < this.lastLeaderContactMs + span;
  }

  resetElectionDeadline(): void {
    const { electionMs, heartbeatMs } = this.config;
    const wait = this.leaderMissing
      ? heartbeatMs * (1 + this.#prng.float() * (LEADERLESS_RETRY_HEARTBEATS - 1))
      : electionMs * (1 + this.#prng.float());
    this.electionDeadlineMs = this.nowMs + wait;
  }

  /** The leader was heard. */
  contactLeader(): void {
    this.lastLeaderContactMs = this.nowMs;
    this.leaderMissing = false;
    this.resetElectionDeadline();
  }

  /** Sends a message of the present term. */
  send(message: RaftMessage): void {
    this.messages.push(message);
  }

  /** A message to `to` of the present term, to be filled in. */
  message(type: RaftMessageType, to: number): RaftMessage {
    return makeMessage(type, this.id, to, this.term);
  }

  // Changes of role.

  becomeFollower(term: number, leader: number): void {
    assert(term >= this.term, 'terms never go back');
    if (this.role === 'leader') this.#resign();
    if (term > this.term) this.vote = 0;
    this.term = term;
    this.role = 'follower';
    this.leader = leader;
    this.votes.clear();
    this.resetElectionDeadline();
  }

  becomePreCandidate(): void {
    assert(this.role !== 'leader', 'a leader does not campaign');
    this.role = 'pre-candidate';
    this.leader = 0;
    this.votes.clear();
    this.resetElectionDeadline();
  }

  becomeCandidate(): void {
    assert(this.role !== 'leader', 'a leader does not campaign');
    this.role = 'candidate';
    this.leader = 0;
    this.term++;
    this.vote = this.id;
    this.votes.clear();
    this.resetElectionDeadline();
  }

  becomeLeader(): void {
    assert(this.role === 'candidate' && this.vote === this.id, 'only an elected candidate leads');
    this.role = 'leader';
    this.leader = this.id;
    this.leaderMissing = false;
    this.votes.clear();
    this.reads = new ReadOnly();
    this.leaseForfeited = false;
    this.transferee = 0;
    this.uncommitted = [];
    this.uncommittedBytes = 0;
    this.commitDueMs = Number.POSITIVE_INFINITY;
    this.peers.clear();
    this.firstOwnIndex = this.log.lastIndex() + 1;
    this.syncPeers();
    this.appendOwn([{ term: 0, index: 0, type: RaftEntryType.ENTRY_COMMAND, data: Buffer.alloc(0) }]);
    broadcastHeartbeat(this);
  }

  #resign(): void {
    for (const state of this.reads.failAll()) this.readStates.push(state);
    this.peers.clear();
    this.transferee = 0;
    this.replicationDue = false;
  }

  /** Appends entries of this leadership; fills in term and index. */
  appendOwn(entries: RaftEntry[]): void {
    assert(this.role === 'leader', 'only the leader appends');
    let index = this.log.lastIndex();
    for (const entry of entries) {
      entry.term = this.term;
      entry.index = ++index;
    }
    this.log.append(entries);
    if (this.confs.append(entries)) this.syncPeers();
    this.commitDueMs = Math.min(this.commitDueMs, this.nowMs + this.config.patienceMs);
    this.replicationDue = true;
  }

  /** Makes the peers those of the configuration in effect. */
  syncPeers(): void {
    const ids = members(this.conf).filter((id) => id !== this.id);
    for (const id of this.peers.keys()) if (!ids.includes(id)) this.peers.delete(id);
    for (const id of ids) {
      if (this.peers.has(id)) continue;
      const { maxInflightBytes } = this.config;
      this.peers.set(id, new Progress(this.log.lastIndex() + 1, maxInflightBytes, this.nowMs));
    }
    if (this.transferee !== 0 && !isVoter(this.conf, this.transferee)) this.transferee = 0;
  }

  // Time.

  tick(): void {
    if (this.role !== 'leader') {
      if (this.nowMs >= this.electionDeadlineMs) this.#electionTimeout();
      return;
    }
    if (this.nowMs >= this.checkQuorumDeadlineMs()) {
      this.becomeFollower(this.term, 0);
      return;
    }
    if (this.transferee !== 0 && this.nowMs >= this.transferDeadlineMs) this.transferee = 0;
    if (this.nowMs >= this.heartbeatDeadlineMs) broadcastHeartbeat(this);
    if (this.nowMs >= deferralDeadlineMs(this)) this.replicationDue = true;
  }

  #electionTimeout(): void {
    if (this.promotable) {
      campaign(this, 'pre-vote');
      return;
    }
    this.leader = 0;
    this.resetElectionDeadline();
  }

  /** When the leader steps down unless a quorum is heard again. */
  checkQuorumDeadlineMs(): number {
    const quorumHeard = quorumValue(this.conf, (id) => this.#ofVoter(id, (peer) => peer.lastActiveMs));
    return quorumHeard + this.config.electionMs;
  }

  /** The end of the leader's lease; -Infinity when it has none. */
  leaseEndMs(): number {
    if (this.role !== 'leader' || this.leaseForfeited || !this.hasCommittedOwn())
      return Number.NEGATIVE_INFINITY;
    const quorumSent = quorumValue(this.conf, (id) => this.#ofVoter(id, (peer) => peer.ackedRoundSentMs));
    return quorumSent + leaseDurationMs(this.leaseMs);
  }

  /** The newest heartbeat round that a quorum answered. */
  quorumRound(): number {
    return quorumValue(this.conf, (id) => this.#ofVoter(id, (peer) => peer.ackedRound));
  }

  /** A voter's value; this server itself is always heard and always has answered. */
  #ofVoter(id: number, value: (peer: Progress) => number): number {
    if (id === this.id) return Number.POSITIVE_INFINITY;
    return value(this.#peer(id));
  }

  #peer(id: number): Progress {
    const peer = this.peers.get(id);
    assert(peer, `the leader follows the progress of member ${id}`);
    return peer;
  }

  /** Durable up to here at a voter, as far as the leader knows. */
  matchOf(id: number): number {
    return id === this.id ? this.log.persisted : this.#peer(id).match;
  }

  /** True once the leader has committed in its own term, which makes its commit index the cluster's. */
  hasCommittedOwn(): boolean {
    return this.log.committed >= this.firstOwnIndex;
  }

  // Connections.

  peerUnreachable(id: number): void {
    this.brokenPeers.add(id);
    const peer = this.peers.get(id);
    if (peer) {
      // What was on its way may be lost; a snapshot's stream certainly is.
      peer.pendingSnapshot = 0;
      peer.becomeProbe();
      this.replicationDue = true;
    }
    if (this.role === 'follower' && this.leader === id && this.promotable) this.#missLeader();
  }

  /** Nobody is known to lead: this server campaigns as soon as no lease can bind it, and repeats that quickly. */
  #missLeader(): void {
    this.leaderMissing = true;
    const leaseEndMs = Math.max(this.nowMs, this.lastLeaderContactMs + this.leaseMs);
    const soonMs =
      leaseEndMs + LEADERLESS_CAMPAIGN_MIN_MS + this.#prng.float() * LEADERLESS_CAMPAIGN_SPREAD_MS;
    this.electionDeadlineMs = Math.min(this.electionDeadlineMs, soonMs);
  }

  peerReachable(id: number): void {
    if (!this.brokenPeers.delete(id)) return;
    const peer = this.peers.get(id);
    if (peer) {
      peer.probeSent = false;
      this.replicationDue = true;
    }
    if (this.role !== 'follower' || this.leader !== id) return;
    this.leaderMissing = false;
    this.resetElectionDeadline();
  }

  // Messages.

  step(message: RaftMessage): void {
    const { type, from, term } = message;
    if (message.to !== this.id) return;
    if (from === this.id) {
      // Its own vote became durable.
      if (type === RaftMessageType.RAFT_VOTE_RESPONSE && term === this.term)
        handleVoteResponse(this, message);
      return;
    }
    this.brokenPeers.delete(from);
    if (term < this.term) {
      this.#refuseStale(message);
      return;
    }
    if (isVoteRequest(type)) {
      handleVoteRequest(this, message);
      return;
    }
    // A granted pre-vote carries the term that the pre-candidate would have.
    const future = type === RaftMessageType.RAFT_PRE_VOTE_RESPONSE && !message.reject;
    if (term > this.term && !future) this.becomeFollower(term, isFromLeader(type) ? from : 0);
    if (isFromLeader(type)) handleFromLeader(this, message);
    else if (type === RaftMessageType.RAFT_TIMEOUT_NOW) handleTimeoutNow(this, message);
    else if (this.role === 'leader') this.#stepLeader(message);
    else handleVoteResponse(this, message);
  }

  #stepLeader(message: RaftMessage): void {
    const peer = this.peers.get(message.from);
    if (!peer) return;
    if (message.type === RaftMessageType.RAFT_APPEND_RESPONSE) handleAppendResponse(this, message, peer);
    if (message.type === RaftMessageType.RAFT_HEARTBEAT_RESPONSE)
      handleHeartbeatResponse(this, message, peer);
  }

  /** Lets the sender of a lower term know the present one, where it would wait in vain otherwise. */
  #refuseStale(message: RaftMessage): void {
    if (isFromLeader(message.type)) {
      const answer = this.message(RaftMessageType.RAFT_APPEND_RESPONSE, message.from);
      answer.reject = true;
      this.messagesAfterPersist.push(answer);
    } else if (message.type === RaftMessageType.RAFT_PRE_VOTE) {
      const answer = this.message(RaftMessageType.RAFT_PRE_VOTE_RESPONSE, message.from);
      answer.reject = true;
      this.send(answer);
    }
  }

  persisted(index: number, term: number): void {
    if (this.log.persistedTo(index, term) && this.role === 'leader') maybeCommit(this);
  }
}
