import { assert } from '../../common/assert.js';
import { RaftEntryType, type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';
import { encodeConf, isJoint, isVoter, leaveConf } from './confchange.js';
import { endDeferral, isDeferred } from './deferral.js';
import { completeTransfer } from './election.js';
import { entriesBytes } from './messages.js';
import type { Progress } from './progress.js';
import { quorumValue } from './quorum.js';
import type { Raft } from './raft.js';

/**
 * Begins a heartbeat round: keeps followers quiet, renews the lease, confirms reads, spreads the commit
 * index.
 */
export function broadcastHeartbeat(raft: Raft): void {
  raft.heartbeatDeadlineMs = raft.nowMs + raft.config.heartbeatMs;
  raft.reads.beginRound(raft.nowMs);
  for (const [id, peer] of raft.peers) {
    const message = raft.message(RaftMessageType.RAFT_HEARTBEAT, id);
    // Never beyond what the peer has, which may be less than what is committed.
    message.commit = Math.min(peer.match, raft.log.committed);
    message.context = raft.reads.round;
    raft.send(message);
  }
  confirmReads(raft);
}

/**
 * Sends what became possible since the last Ready: it runs once a Ready, so that all proposals and answers
 * that came in meanwhile share messages.
 */
export function replicate(raft: Raft): void {
  if (!raft.replicationDue) return;
  assert(raft.role === 'leader', 'only the leader replicates');
  raft.replicationDue = false;
  for (const [id, peer] of [...raft.peers]) {
    if (isDeferred(raft, id, peer)) continue;
    endDeferral(raft, peer);
    while (!peer.paused && peer.next <= raft.log.lastIndex()) if (!sendAppend(raft, id, peer)) break;
    const isIdle = peer.state === 'replicate' && peer.inflights.count === 0;
    const isUntried = peer.state === 'probe' && !peer.probeSent;
    if (isUntried || (isIdle && peer.sentCommit < raft.log.committed)) sendAppend(raft, id, peer);
  }
  if (raft.reads.wantsRound && !raft.reads.roundOut) broadcastHeartbeat(raft);
}

/**
 * Sends one append, empty when nothing may follow or the window is full. @returns false when nothing could be
 * sent.
 */
function sendAppend(raft: Raft, to: number, peer: Progress): boolean {
  const { log } = raft;
  const prev = peer.next - 1;
  const prevTerm = log.term(prev);
  if (prevTerm === undefined) return sendSnapshot(raft, to, peer);
  const isFull = peer.state === 'replicate' && peer.inflights.full;
  const entries = isFull ? [] : log.entriesFrom(peer.next, raft.config.maxAppendBytes);
  if (entries === undefined) return sendSnapshot(raft, to, peer);
  const message = raft.message(RaftMessageType.RAFT_APPEND, to);
  message.index = prev;
  message.logTerm = prevTerm;
  message.entries = entries;
  message.commit = log.committed;
  raft.send(message);
  peer.sentCommit = log.committed;
  peer.sent(prev + entries.length, entriesBytes(entries), raft.reads.round);
  return true;
}

function sendSnapshot(raft: Raft, to: number, peer: Progress): boolean {
  const snapshot = raft.log.sendableSnapshot();
  const isAlive = raft.nowMs < peer.lastActiveMs + raft.config.electionMs && !raft.brokenPeers.has(to);
  if (snapshot === undefined || !isAlive) {
    // Tried again when the peer answers a heartbeat.
    peer.probeSent = true;
    return false;
  }
  assert(snapshot.conf && snapshot.index >= raft.log.firstIndex() - 1, 'a snapshot reaches up to the log');
  const message = raft.message(RaftMessageType.RAFT_SNAPSHOT, to);
  message.snapshot = snapshot;
  raft.send(message);
  peer.becomeSnapshot(snapshot.index);
  return true;
}

/** A follower says how far its log agrees, or where it does not. */
export function handleAppendResponse(raft: Raft, message: RaftMessage, peer: Progress): void {
  const { index } = message;
  peer.lastActiveMs = raft.nowMs;
  if (message.reject) {
    const hint =
      message.logTerm > 0
        ? raft.log.lastNotAbove(message.rejectHint, message.logTerm).index
        : message.rejectHint;
    if (!peer.reject(index, hint)) return;
    if (peer.state === 'replicate') peer.becomeProbe();
    raft.replicationDue = true;
    return;
  }
  assert(
    index <= raft.log.lastIndex(),
    `server ${message.from} acknowledged ${index}, beyond the leader's log`,
  );
  const isNews = peer.acknowledge(index);
  if (peer.state === 'probe' && peer.match === index) peer.becomeReplicate();
  else if (peer.state === 'replicate') peer.inflights.free(index);
  else if (peer.state === 'snapshot' && peer.match >= peer.pendingSnapshot) peer.becomeReplicate();
  raft.replicationDue = true;
  if (!isNews) return;
  maybeCommit(raft);
  if (raft.transferee === message.from) completeTransfer(raft);
}

/** A follower has heard a round of heartbeats: reads that wait for one are confirmed, and a lost append is sent again. */
export function handleHeartbeatResponse(raft: Raft, message: RaftMessage, peer: Progress): void {
  peer.lastActiveMs = raft.nowMs;
  const sentMs = raft.reads.roundSentMs(message.context);
  if (sentMs !== undefined && message.context > peer.ackedRound) {
    peer.ackedRound = message.context;
    peer.ackedRoundSentMs = sentMs;
    confirmReads(raft);
  }
  // The peer lives, and has not acknowledged what was sent a heartbeat ago: it may be lost.
  if (message.context > peer.sentRound) sendProbe(raft, message.from);
}

/**
 * Sends an append to a peer that is not known to be up to date, empty if its window is full: the answer shows
 * whether earlier ones were lost without a trace.
 */
export function sendProbe(raft: Raft, to: number): void {
  const peer = raft.peers.get(to);
  if (!peer || peer.state === 'snapshot') return;
  if (peer.state === 'probe' || peer.match < raft.log.lastIndex()) sendAppend(raft, to, peer);
}

/**
 * Commits what a quorum holds durably, if it is of this term (Raft, section 5.4.2), and does what follows
 * from that.
 */
export function maybeCommit(raft: Raft): void {
  const { log } = raft;
  const index = quorumValue(raft.conf, (id) => raft.matchOf(id));
  if (index <= log.committed || !log.matches(index, raft.term)) return;
  log.commitTo(index);
  raft.confs.commit(index);
  raft.commitDueMs = index < log.lastIndex() ? raft.nowMs + raft.config.patienceMs : Number.POSITIVE_INFINITY;
  raft.replicationDue = true;
  while (raft.uncommitted.length > 0 && raft.uncommitted[0]!.last <= index) {
    raft.uncommittedBytes -= raft.uncommitted.shift()!.bytes;
  }
  for (const context of raft.reads.takeUnindexed()) registerRead(raft, context);
  if (raft.confs.activeIndex > index) return;
  if (isJoint(raft.conf)) {
    const data = encodeConf(leaveConf(raft.conf));
    raft.appendOwn([{ term: 0, index: 0, type: RaftEntryType.ENTRY_CONF_CHANGE, data }]);
  } else if (!isVoter(raft.conf, raft.id)) {
    abdicate(raft);
  }
}

/**
 * The leader has led itself out of the cluster: tells the others of the commit and the best of them to
 * campaign.
 */
function abdicate(raft: Raft): void {
  replicate(raft);
  const heir = raft.conf.voters.find((id) => raft.matchOf(id) === raft.log.lastIndex());
  if (heir !== undefined) raft.send(raft.message(RaftMessageType.RAFT_TIMEOUT_NOW, heir));
  raft.becomeFollower(raft.term, 0);
}

/** Serves a read from the lease, or queues it for the next heartbeat round. */
export function registerRead(raft: Raft, context: number): void {
  if (raft.nowMs < raft.leaseEndMs()) {
    raft.readStates.push({ context, index: raft.log.committed });
    return;
  }
  if (raft.hasCommittedOwn()) raft.reads.add(context, raft.log.committed);
  else raft.reads.addUnindexed(context);
  raft.replicationDue = true;
}

function confirmReads(raft: Raft): void {
  if (raft.reads.pending === 0) return;
  for (const state of raft.reads.confirm(raft.quorumRound())) raft.readStates.push(state);
  // Reads that came meanwhile want a round of their own.
  if (raft.reads.wantsRound) raft.replicationDue = true;
}
