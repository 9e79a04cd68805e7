import { assert } from '../../common/assert.js';
import { type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';
import type { Raft } from './raft.js';

/** An append, heartbeat or snapshot of the present term's leader. */
export function handleFromLeader(raft: Raft, message: RaftMessage): void {
  const { type, from } = message;
  assert(raft.role !== 'leader', `servers ${raft.id} and ${from} both lead term ${raft.term}`);
  assert(
    raft.leader === 0 || raft.leader === from,
    `servers ${raft.leader} and ${from} both lead term ${raft.term}`,
  );
  if (raft.role !== 'follower') raft.becomeFollower(raft.term, from);
  raft.leader = from;
  raft.contactLeader();
  if (type === RaftMessageType.RAFT_APPEND) handleAppend(raft, message);
  else if (type === RaftMessageType.RAFT_HEARTBEAT) handleHeartbeat(raft, message);
  else handleSnapshot(raft, message);
}

function acknowledge(raft: Raft, to: number, index: number): void {
  const answer = raft.message(RaftMessageType.RAFT_APPEND_RESPONSE, to);
  answer.index = index;
  raft.messagesAfterPersist.push(answer);
}

function handleAppend(raft: Raft, message: RaftMessage): void {
  const { log } = raft;
  const { index: prev, entries } = message;
  if (prev < log.committed) {
    acknowledge(raft, message.from, log.committed);
    return;
  }
  if (!log.matches(prev, message.logTerm)) {
    reject(raft, message);
    return;
  }
  const last = prev + entries.length;
  assert(
    entries.length === 0 || entries[entries.length - 1]!.index === last,
    "an append's entries have no gaps",
  );
  const firstNew = log.firstNew(entries);
  if (firstNew !== undefined) {
    const fresh = firstNew === prev + 1 ? entries : entries.slice(firstNew - prev - 1);
    raft.confs.truncate(firstNew);
    log.replace(fresh);
    raft.confs.append(fresh);
  }
  commitTo(raft, Math.min(message.commit, last));
  acknowledge(raft, message.from, last);
}

/** Answers with the last place where the logs may agree, so that whole terms are skipped at once. */
function reject(raft: Raft, message: RaftMessage): void {
  const answer = raft.message(RaftMessageType.RAFT_APPEND_RESPONSE, message.from);
  const hint = raft.log.lastNotAbove(Math.min(message.index, raft.log.lastIndex()), message.logTerm);
  answer.index = message.index;
  answer.reject = true;
  answer.rejectHint = hint.index;
  answer.logTerm = hint.term;
  raft.messagesAfterPersist.push(answer);
}

/**
 * The answer grants a lease: this server helps nobody else into leadership for leaseMs from now on. It needs
 * no persistence: after a restart, every server behaves as if it had just granted one.
 */
function handleHeartbeat(raft: Raft, message: RaftMessage): void {
  commitTo(raft, message.commit);
  const answer = raft.message(RaftMessageType.RAFT_HEARTBEAT_RESPONSE, message.from);
  answer.context = message.context;
  raft.send(answer);
}

function handleSnapshot(raft: Raft, message: RaftMessage): void {
  const { log } = raft;
  const { snapshot } = message;
  assert(snapshot?.conf, 'a snapshot names its configuration');
  if (snapshot.index <= log.committed) {
    acknowledge(raft, message.from, log.committed);
    return;
  }
  if (log.matches(snapshot.index, snapshot.term)) {
    // The log already leads there: its entries are worth more than the snapshot.
    commitTo(raft, snapshot.index);
  } else {
    log.restore(snapshot);
    raft.confs.restore(snapshot.index, snapshot.conf);
  }
  acknowledge(raft, message.from, snapshot.index);
}

function commitTo(raft: Raft, index: number): void {
  if (raft.log.commitTo(index)) raft.confs.commit(index);
}
