import assert from 'node:assert/strict';
import { createPrng } from '../../../common/prng.js';
import { RaftNode } from '../../../metaserver/raft/node.js';
import type { RaftConfState, RaftMessage, Ready } from '../../../metaserver/raft/types.js';
import { RaftMessageType } from '../../../proto/gen/raft.js';
import { MemoryLog } from './memory-log.js';

const ELECTION_MS = 1000;
const LEASE_MS = 300;
const conf: RaftConfState = { voters: [1, 2, 3], votersOutgoing: [], learners: [], roster: [] };

function createNode(log = new MemoryLog(conf), applied = 0, term = 0): RaftNode {
  const config = {
    id: 1,
    electionMs: ELECTION_MS,
    heartbeatMs: 100,
    deferMs: 0,
    patienceMs: 20,
    maxAppendBytes: 1000,
    maxInflightBytes: 1000,
    maxUncommittedBytes: 1000,
  };
  const hardState = { term, vote: 0, commit: applied };
  return new RaftNode(config, log, createPrng(1), { hardState, conf, applied });
}

/** Takes a Ready as a shell does, all of it durable at once. */
function take(node: RaftNode, log: MemoryLog): Ready {
  const ready = node.ready();
  log.append(ready.entries);
  const last = ready.entries[ready.entries.length - 1];
  if (last) node.persisted(last.index, last.term);
  for (const message of ready.messagesAfterPersist) if (message.to === 1) node.step(message, 0);
  return ready;
}

function answer(type: RaftMessageType, from: number, fields: Partial<RaftMessage>): RaftMessage {
  const empty = { logTerm: 0, index: 0, entries: [], commit: 0, reject: false, rejectHint: 0 };
  return { type, from, to: 1, term: 1, ...empty, snapshot: undefined, context: 0, force: false, ...fields };
}

function lead(): { node: RaftNode; log: MemoryLog } {
  const log = new MemoryLog(conf);
  const node = createNode(log);
  node.campaign(0);
  take(node, log);
  node.step(answer(RaftMessageType.RAFT_PRE_VOTE_RESPONSE, 2, {}), 0);
  take(node, log);
  node.step(answer(RaftMessageType.RAFT_VOTE_RESPONSE, 2, {}), 0);
  return { node, log };
}

describe('a raft node', () => {
  it('asks for a sync for votes and entries, not for the commit index alone', () => {
    const log = new MemoryLog(conf);
    const node = createNode(log);
    node.campaign(0);
    const asking = take(node, log);
    assert.deepEqual([asking.mustSync, asking.hardState], [false, undefined]);
    node.step(answer(RaftMessageType.RAFT_PRE_VOTE_RESPONSE, 2, {}), 0);
    const voting = take(node, log);
    assert.deepEqual([voting.mustSync, voting.hardState], [true, { term: 1, vote: 1, commit: 0 }]);
    node.step(answer(RaftMessageType.RAFT_VOTE_RESPONSE, 2, {}), 0);
    const leading = take(node, log);
    assert.deepEqual([leading.mustSync, leading.hardState, leading.entries.length], [true, undefined, 1]);
    node.step(answer(RaftMessageType.RAFT_APPEND_RESPONSE, 2, { index: 1 }), 0);
    const committing = take(node, log);
    assert.deepEqual([committing.mustSync, committing.hardState], [false, { term: 1, vote: 1, commit: 1 }]);
    assert.deepEqual(committing.committed, leading.entries);
  });

  it('gives each thing once', () => {
    const { node, log } = lead();
    take(node, log);
    assert.equal(node.hasReady(), false);
    assert.deepEqual(node.ready(), {
      entries: [],
      mustSync: false,
      committed: [],
      messages: [],
      messagesAfterPersist: [],
      readStates: [],
    });
  });

  it('sends proposals before they are durable here, and counts itself only when they are', () => {
    const { node, log } = lead();
    take(node, log);
    node.step(answer(RaftMessageType.RAFT_APPEND_RESPONSE, 2, { index: 1 }), 0);
    take(node, log);
    assert.deepEqual(node.propose([Buffer.from('a'), Buffer.from('b')], 1), { index: 2, term: 1 });
    const ready = node.ready();
    log.append(ready.entries);
    const appends = ready.messages.map(({ to, entries }) => [to, entries.map((entry) => entry.index)]);
    assert.deepEqual(appends, [[2, [2, 3]]]);
    node.step(answer(RaftMessageType.RAFT_APPEND_RESPONSE, 2, { index: 3 }), 1);
    assert.equal(node.status().commit, 1);
    node.persisted(2, 1);
    assert.equal(node.status().commit, 2);
    node.persisted(3, 1);
    assert.equal(node.status().commit, 3);
    assert.deepEqual(
      node.ready().committed.map((entry) => entry.index),
      [2, 3],
    );
  });

  it('ignores persistence of entries that were replaced meanwhile', () => {
    const log = new MemoryLog(conf);
    const node = createNode(log);
    const entry = (index: number, term: number) => ({ index, term, type: 0, data: Buffer.alloc(0) });
    node.step(answer(RaftMessageType.RAFT_APPEND, 2, { entries: [entry(1, 1), entry(2, 1)] }), 0);
    log.append(node.ready().entries);
    const replacing = { term: 2, index: 1, logTerm: 1, entries: [entry(2, 2)], commit: 2 };
    node.step(answer(RaftMessageType.RAFT_APPEND, 3, replacing), 0);
    log.append(node.ready().entries);
    node.persisted(2, 1);
    assert.equal(node.status().persisted, 0);
    node.persisted(2, 2);
    assert.deepEqual(node.ready().committed, [entry(1, 1), entry(2, 2)]);
  });

  it('names the time of its next deadline', () => {
    const node = createNode();
    assert.equal(node.nextDeadlineMs(), 0);
    node.tick(50);
    const deadlineMs = node.nextDeadlineMs();
    assert.ok(deadlineMs > 50 + LEASE_MS && deadlineMs < 50 + ELECTION_MS);
    node.tick(deadlineMs - 1);
    assert.equal(node.role, 'follower');
    node.tick(deadlineMs);
    assert.equal(node.role, 'pre-candidate');
    assert.equal(lead().node.nextDeadlineMs(), 100);
  });

  it('refuses to start with parts that contradict one another', () => {
    assert.throws(() => createNode(new MemoryLog(conf), 1), /before its committed index 1/);
    const ahead = new MemoryLog(conf);
    ahead.append([{ index: 1, term: 5, type: 0, data: Buffer.alloc(0) }]);
    assert.throws(() => createNode(ahead, 0, 4), /the term is persisted/);
    ahead.compact(1, conf);
    assert.throws(() => createNode(ahead, 0, 5), /compacted away/);
  });

  it('stops rather than go on with a second leader in its term, or with a lost log', () => {
    const { node } = lead();
    assert.throws(() => node.step(answer(RaftMessageType.RAFT_HEARTBEAT, 2, {}), 1), /both lead term 1/);
    const follower = createNode();
    const lost = answer(RaftMessageType.RAFT_HEARTBEAT, 2, { commit: 7 });
    assert.throws(() => follower.step(lost, 1), /beyond the log's end/);
  });
});
