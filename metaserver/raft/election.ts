import { assert } from '../../common/assert.js';
import { type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';
import { isVoter } from './confchange.js';
import { quorumVote } from './quorum.js';
import type { Raft } from './raft.js';

/**
 * pre-vote: asks whether an election could be won, without a new term, so that a server that was cut off does
 * not depose a working leader when it returns (thesis, section 9.6). vote: the election. transfer: the
 * election at the leader's own wish, which overrides the voters' promise to that leader.
 */
export type CampaignKind = 'pre-vote' | 'vote' | 'transfer';

/** Starts a campaign; a cluster of one voter is won by the own (pre-)vote. */
export function campaign(raft: Raft, kind: CampaignKind): void {
  assert(raft.promotable, 'only a voter campaigns');
  if (kind === 'pre-vote') {
    raft.becomePreCandidate();
    requestVotes(raft, RaftMessageType.RAFT_PRE_VOTE, raft.term + 1, false);
    countVote(raft, raft.id, true);
    return;
  }
  raft.becomeCandidate();
  requestVotes(raft, RaftMessageType.RAFT_VOTE, raft.term, kind === 'transfer');
  // The own vote counts when it is durable: this answer to itself comes back through step().
  raft.messagesAfterPersist.push(raft.message(RaftMessageType.RAFT_VOTE_RESPONSE, raft.id));
}

function requestVotes(raft: Raft, type: RaftMessageType, term: number, force: boolean): void {
  const { voters, votersOutgoing } = raft.conf;
  for (const id of new Set([...voters, ...votersOutgoing])) {
    if (id === raft.id) continue;
    const request = raft.message(type, id);
    request.term = term;
    request.index = raft.log.lastIndex();
    request.logTerm = raft.log.lastTerm();
    request.force = force;
    // A candidate must not be elected in a term that it may forget: others' votes alone can be a majority,
    // and after a crash it would campaign, and lead, in the same term again.
    if (type === RaftMessageType.RAFT_VOTE) raft.messagesAfterPersist.push(request);
    else raft.send(request);
  }
}

/**
 * A request for a vote or pre-vote whose term is not below ours. While the promise to a leader holds it is
 * ignored, also within the same term: that term may have reached us by an answer, without a leader's or
 * voters' consent.
 */
export function handleVoteRequest(raft: Raft, message: RaftMessage): void {
  const { from, term, force } = message;
  const isPreVote = message.type === RaftMessageType.RAFT_PRE_VOTE;
  const isRepeated = !isPreVote && term === raft.term && raft.vote === from;
  // A cold start need not wait: if term 1 or a later one had a leader, a quorum would remember that, and no
  // second one could win term 1.
  const isFirst = raft.term === 0 && term === 1;
  if (!force && !isRepeated && !isFirst && raft.promised()) return;
  if (!isPreVote && term > raft.term) {
    // The leader whom the promise was given has forfeited its lease before it sent TIMEOUT_NOW.
    if (force) raft.lastLeaderContactMs = Number.NEGATIVE_INFINITY;
    raft.becomeFollower(term, 0);
  }
  const isFree =
    raft.vote === from || (raft.vote === 0 && raft.leader === 0) || (isPreVote && term > raft.term);
  const isGranted = isFree && raft.log.isUpToDate(message.index, message.logTerm);
  if (isPreVote) {
    const answer = raft.message(RaftMessageType.RAFT_PRE_VOTE_RESPONSE, from);
    answer.reject = !isGranted;
    if (isGranted) answer.term = term;
    raft.send(answer);
    return;
  }
  assert(raft.role !== 'leader' || !isGranted, 'a leader grants no vote in its own term');
  const answer = raft.message(RaftMessageType.RAFT_VOTE_RESPONSE, from);
  answer.reject = !isGranted;
  raft.messagesAfterPersist.push(answer);
  if (!isGranted) return;
  raft.vote = from;
  raft.leaderMissing = false;
  raft.resetElectionDeadline();
}

/** An answer to this server's campaign; anything else is out of date. */
export function handleVoteResponse(raft: Raft, message: RaftMessage): void {
  const isPreVote = message.type === RaftMessageType.RAFT_PRE_VOTE_RESPONSE;
  const isAwaited =
    (raft.role === 'pre-candidate' && isPreVote && (message.reject || message.term === raft.term + 1)) ||
    (raft.role === 'candidate' &&
      message.type === RaftMessageType.RAFT_VOTE_RESPONSE &&
      message.term === raft.term);
  if (isAwaited) countVote(raft, message.from, !message.reject);
}

function countVote(raft: Raft, from: number, granted: boolean): void {
  if (!raft.votes.has(from)) raft.votes.set(from, granted);
  const result = quorumVote(raft.conf, raft.votes);
  if (result === 'lost') raft.becomeFollower(raft.term, 0);
  if (result !== 'won') return;
  if (raft.role === 'pre-candidate') campaign(raft, 'vote');
  else raft.becomeLeader();
}

/** The leader hands its office to this server. */
export function handleTimeoutNow(raft: Raft, message: RaftMessage): void {
  if (raft.role !== 'follower' || raft.leader !== message.from || !raft.promotable) return;
  campaign(raft, 'transfer');
}

/** Tells the transfer's target to campaign once its log is complete. */
export function completeTransfer(raft: Raft): void {
  const { transferee } = raft;
  if (transferee === 0 || !isVoter(raft.conf, transferee)) return;
  if (raft.peers.get(transferee)?.match !== raft.log.lastIndex()) return;
  raft.leaseForfeited = true;
  raft.send(raft.message(RaftMessageType.RAFT_TIMEOUT_NOW, transferee));
}
