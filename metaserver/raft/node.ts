import { assert } from '../../common/assert.js';
import type { Prng } from '../../common/prng.js';
import { RaftEntryType } from '../../proto/gen/raft.js';
import {
  confProblem,
  encodeConf,
  enterConf,
  equalConf,
  isJoint,
  isVoter,
  normalizeConf,
} from './confchange.js';
import { deferralDeadlineMs } from './deferral.js';
import { campaign, completeTransfer } from './election.js';
import { ENTRY_OVERHEAD_BYTES } from './messages.js';
import type { ProgressState } from './progress.js';
import { type InitialState, Raft } from './raft.js';
import { registerRead, replicate, sendProbe } from './replication.js';
import type {
  HardState,
  LogReader,
  RaftConfig,
  RaftConfState,
  RaftEntry,
  RaftMessage,
  Ready,
  Role,
  SoftState,
} from './types.js';

export type { InitialState } from './raft.js';

/**
 * Where proposed entries stand in the log if this leadership lasts: the first index, and the term to check.
 */
export interface Proposed {
  index: number;
  term: number;
}

/**
 * not-leader: ask status().leader. overloaded: too many uncommitted bytes, try later. transferring: a
 * leadership transfer is under way, try later. conf-pending: another change of membership is not finished, or
 * this leader has not yet committed in its term.
 */
export type ProposeRefusal = 'not-leader' | 'overloaded' | 'transferring';
export type ConfRefusal = ProposeRefusal | 'conf-pending' | 'conf-invalid';

export interface PeerStatus {
  id: number;
  match: number;
  next: number;
  state: ProgressState;
  inflightBytes: number;
  /** Entries may be sent no further for now. */
  paused: boolean;
  lastActiveMs: number;
}

export interface RaftStatus {
  id: number;
  role: Role;
  term: number;
  vote: number;
  leader: number;
  firstIndex: number;
  lastIndex: number;
  persisted: number;
  commit: number;
  applied: number;
  conf: RaftConfState;
  transferee: number;
  uncommittedBytes: number;
  /** Empty unless leader. */
  peers: PeerStatus[];
}

/**
 * One server of a Raft group: a state machine without I/O, clock or randomness of its own, after
 * etcd-io/raft. It is fed by the methods; what must follow from that is collected until ready() takes it (the
 * shell's duties stand at Ready).
 *
 * Every `nowMs` is the monotonic time of this server, read after the event that is reported: a message's
 * arrival, a read's arrival. With an older time, leases would reach too far. Time handed in never goes back
 * (smaller values count as the largest one so far).
 *
 * Departures from etcd-io/raft: time instead of ticks; a lease shorter than the election time-out, so that a
 * broken connection may start an election soon and yet never while a leader may serve reads; configurations
 * take effect when appended; requests for votes wait for the candidate's own persistence; appends are
 * assembled once per Ready.
 */
export class RaftNode {
  readonly #raft: Raft;
  #hardState: HardState;
  #softState: SoftState;

  /**
   * @param log the shell's log, all of it durable at this moment
   * @param initial what was persisted: a new server has term 0, vote 0, commit 0, applied 0 and the cluster's
   *   first conf; a server that joins has no voters in it
   * @throws AssertionError when the parts contradict one another
   */
  constructor(config: RaftConfig, log: LogReader, prng: Prng, initial: InitialState) {
    this.#raft = new Raft(config, log, prng, initial);
    this.#hardState = this.#currentHardState();
    this.#softState = this.#currentSoftState();
  }

  get id(): number {
    return this.#raft.id;
  }

  get role(): Role {
    return this.#raft.role;
  }

  get term(): number {
    return this.#raft.term;
  }

  /** 0: unknown. */
  get leader(): number {
    return this.#raft.leader;
  }

  /** The configuration in effect; the same object as long as it does not change. */
  get conf(): RaftConfState {
    return this.#raft.conf;
  }

  /**
   * Takes the first configuration of a cluster, the one before its first entry, on a server that knew none so far. All founders
   * must take the same one, and it must name this server.
   */
  found(conf: RaftConfState, nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    this.#raft.found(conf);
  }

  /** Does what is due: election, heartbeats, check-quorum, end of a transfer. Harmless when nothing is. */
  tick(nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    this.#raft.tick();
  }

  /** When tick() is due next; it changes with every call into the core. 0 before the first call. */
  nextDeadlineMs(): number {
    const raft = this.#raft;
    if (Number.isNaN(raft.nowMs)) return 0;
    if (raft.role !== 'leader') return raft.electionDeadlineMs;
    const transferMs = raft.transferee === 0 ? Number.POSITIVE_INFINITY : raft.transferDeadlineMs;
    return Math.min(
      raft.heartbeatDeadlineMs,
      raft.checkQuorumDeadlineMs(),
      transferMs,
      deferralDeadlineMs(raft),
    );
  }

  /** Feeds a message that arrived. Messages that are out of date or not for this server are ignored. */
  step(message: RaftMessage, nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    this.#raft.step(message);
  }

  /**
   * The connection to a peer broke or cannot be made. A follower that loses its leader so campaigns as soon
   * as the lease that it granted has run out; a leader sends to that peer more carefully.
   */
  peerUnreachable(id: number, nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    this.#raft.peerUnreachable(id);
  }

  /** The connection stands again. Any message from the peer says the same. */
  peerReachable(id: number, nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    this.#raft.peerReachable(id);
  }

  /**
   * Appends commands to the leader's log, one entry each.
   * @param data not empty; takes the buffers over
   * @returns the index of the first and the term; they are committed when `committed` shows them with that
   *   term
   */
  propose(data: Buffer[], nowMs: number): Proposed | ProposeRefusal {
    assert(data.length > 0, 'something is proposed');
    const entries: RaftEntry[] = [];
    for (const item of data) {
      entries.push({ term: 0, index: 0, type: RaftEntryType.ENTRY_COMMAND, data: item });
    }
    this.#raft.advanceTo(nowMs);
    return this.#append(entries);
  }

  #append(entries: RaftEntry[]): Proposed | ProposeRefusal {
    const raft = this.#raft;
    if (raft.role !== 'leader') return 'not-leader';
    if (raft.transferee !== 0) return 'transferring';
    let bytes = 0;
    for (const entry of entries) bytes += entry.data.length + ENTRY_OVERHEAD_BYTES;
    // A single proposal above the limit must be possible, or it would be refused for ever.
    if (raft.uncommittedBytes > 0 && raft.uncommittedBytes + bytes > raft.config.maxUncommittedBytes) {
      return 'overloaded';
    }
    raft.appendOwn(entries);
    raft.uncommitted.push({ last: raft.log.lastIndex(), bytes });
    raft.uncommittedBytes += bytes;
    return { index: entries[0]!.index, term: raft.term };
  }

  /**
   * Changes the membership to `conf` (voters and learners; votersOutgoing empty): through joint consensus
   * when voters change, which the leader leaves by itself. Done when a conf entry without votersOutgoing is
   * committed. A new voter should have been a learner that caught up, or the cluster may wait for it.
   */
  proposeConfChange(conf: RaftConfState, nowMs: number): Proposed | ConfRefusal {
    const raft = this.#raft;
    raft.advanceTo(nowMs);
    if (raft.role !== 'leader') return 'not-leader';
    const target = normalizeConf(conf);
    if (isJoint(target) || confProblem(target) !== undefined || equalConf(target, raft.conf))
      return 'conf-invalid';
    // A leader that has not committed in its term could build on a configuration that another leader has
    // undone.
    const isPending =
      isJoint(raft.conf) || raft.confs.activeIndex > raft.log.committed || !raft.hasCommittedOwn();
    if (isPending) return 'conf-pending';
    const data = encodeConf(enterConf(raft.conf, target));
    return this.#append([{ term: 0, index: 0, type: RaftEntryType.ENTRY_CONF_CHANGE, data }]);
  }

  /**
   * Asks for a linearizable read. The answer comes as a ReadState of some later Ready: of the next one when
   * the lease holds, after a heartbeat round otherwise; failed when this server does not lead or ceases to.
   * @param context returned with the answer
   */
  readIndex(context: number, nowMs: number): void {
    const raft = this.#raft;
    raft.advanceTo(nowMs);
    if (raft.role !== 'leader' || raft.reads.full) {
      raft.readStates.push({ context, index: 0, failed: true });
    } else {
      registerRead(raft, context);
    }
  }

  /** True when a read may be answered from the state at the commit index, without asking anyone. */
  leaseValid(nowMs: number): boolean {
    return Math.max(nowMs, this.#raft.nowMs) < this.#raft.leaseEndMs();
  }

  /**
   * Hands the leadership to another voter: it is brought up to date, then told to campaign. Proposals are
   * refused meanwhile, for at most electionMs; reads take a round trip until this term ends.
   * @returns false when this server does not lead or `to` is no other voter
   */
  transferLeader(to: number, nowMs: number): boolean {
    const raft = this.#raft;
    raft.advanceTo(nowMs);
    if (raft.role !== 'leader' || to === raft.id || !isVoter(raft.conf, to)) return false;
    if (raft.transferee === to) return true;
    raft.transferee = to;
    raft.transferDeadlineMs = raft.nowMs + raft.config.electionMs;
    sendProbe(raft, to);
    completeTransfer(raft);
    return true;
  }

  /** For tests: campaigns now, whatever this server has promised (leases do not hold against that). */
  campaign(nowMs: number): void {
    this.#raft.advanceTo(nowMs);
    if (this.#raft.role !== 'leader' && this.#raft.promotable) campaign(this.#raft, 'pre-vote');
  }

  /** The snapshot that a RAFT_SNAPSHOT announced was delivered in whole, or was given up. */
  reportSnapshot(to: number, ok: boolean): void {
    const peer = this.#raft.peers.get(to);
    if (peer?.state !== 'snapshot') return;
    if (!ok) peer.pendingSnapshot = 0;
    peer.becomeProbe();
    // The peer's answer, or the next heartbeat's, tells where to go on.
    peer.probeSent = true;
  }

  /** All Readys up to the one that ended in entry (or snapshot) `index` of `term` are durable. */
  persisted(index: number, term: number): void {
    this.#raft.persisted(index, term);
  }

  /** The state machine holds everything up to `index`. */
  applied(index: number): void {
    this.#raft.log.appliedTo(index);
  }

  hasReady(): boolean {
    const raft = this.#raft;
    replicate(raft);
    return (
      raft.messages.length > 0 ||
      raft.messagesAfterPersist.length > 0 ||
      raft.readStates.length > 0 ||
      raft.log.hasUnstable() ||
      raft.log.hasCommitted() ||
      this.#hardStateChanged() ||
      this.#softStateChanged()
    );
  }

  /** Takes what is to be done; the next call gives only what is new. */
  ready(): Ready {
    const raft = this.#raft;
    replicate(raft);
    const committed = raft.log.takeCommitted();
    const { entries, snapshot } = raft.log.takeUnstable();
    const { messages, messagesAfterPersist, readStates } = raft;
    raft.messages = [];
    raft.messagesAfterPersist = [];
    raft.readStates = [];
    const ready: Ready = { entries, mustSync: false, committed, messages, messagesAfterPersist, readStates };
    if (snapshot) ready.snapshot = snapshot;
    const voted = raft.term !== this.#hardState.term || raft.vote !== this.#hardState.vote;
    ready.mustSync = voted || entries.length > 0 || snapshot !== undefined;
    if (this.#hardStateChanged()) {
      this.#hardState = this.#currentHardState();
      ready.hardState = this.#hardState;
    }
    if (this.#softStateChanged()) {
      this.#softState = this.#currentSoftState();
      ready.softState = this.#softState;
    }
    return ready;
  }

  /** A copy of the state, for people and for tests. */
  status(): RaftStatus {
    const raft = this.#raft;
    return {
      id: raft.id,
      role: raft.role,
      term: raft.term,
      vote: raft.vote,
      leader: raft.leader,
      firstIndex: raft.log.firstIndex(),
      lastIndex: raft.log.lastIndex(),
      persisted: raft.log.persisted,
      commit: raft.log.committed,
      applied: raft.log.applied,
      conf: normalizeConf(raft.conf),
      transferee: raft.transferee,
      uncommittedBytes: raft.uncommittedBytes,
      peers: [...raft.peers].map(([id, peer]) => ({
        id,
        match: peer.match,
        next: peer.next,
        state: peer.state,
        inflightBytes: peer.inflights.bytes,
        paused: peer.paused,
        lastActiveMs: peer.lastActiveMs,
      })),
    };
  }

  #currentHardState(): HardState {
    return { term: this.#raft.term, vote: this.#raft.vote, commit: this.#raft.log.committed };
  }

  #hardStateChanged(): boolean {
    const { term, vote, commit } = this.#hardState;
    return this.#raft.term !== term || this.#raft.vote !== vote || this.#raft.log.committed !== commit;
  }

  #currentSoftState(): SoftState {
    return { role: this.#raft.role, term: this.#raft.term, leader: this.#raft.leader };
  }

  #softStateChanged(): boolean {
    const { role, term, leader } = this.#softState;
    return this.#raft.role !== role || this.#raft.term !== term || this.#raft.leader !== leader;
  }
}
