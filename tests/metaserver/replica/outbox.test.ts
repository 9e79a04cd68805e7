import assert from 'node:assert/strict';
import type { Clock } from '../../../common/clock.js';
import { makeMessage } from '../../../metaserver/raft/messages.js';
import { Outbox } from '../../../metaserver/replica/outbox.js';
import { type RaftMessage, RaftMessageType } from '../../../proto/gen/raft.js';

function message(type: RaftMessageType, to: number, commit: number, entries = 0): RaftMessage {
  const result = makeMessage(type, 1, to, 1);
  result.commit = commit;
  result.entries = Array.from({ length: entries }, (_, i) => ({
    term: 1,
    index: i + 1,
    type: 0,
    data: Buffer.from('x'),
  }));
  return result;
}

const { RAFT_APPEND, RAFT_HEARTBEAT, RAFT_SNAPSHOT, RAFT_VOTE } = RaftMessageType;

describe('Outbox', () => {
  let sent: string[];
  let timers: (() => void)[];
  let outbox: Outbox;
  let now: number;

  /** So much later the timer rings. */
  const ring = (afterMs: number): void => {
    now += afterMs;
    timers.shift()?.();
  };

  beforeEach(() => {
    sent = [];
    timers = [];
    now = 1_000;
    const note = (where: string) => (each: RaftMessage) =>
      void sent.push(`${where} ${RaftMessageType[each.type]} to ${each.to} commit ${each.commit}`);
    const clock: Clock = {
      now: () => now,
      wall: () => ({ sec: 0, nsec: 0 }),
      every: () => assert.fail('no repeated timer'),
      after: (_ms, fn) => {
        timers.push(fn);
        return { cancel: () => timers.splice(timers.indexOf(fn), 1) };
      },
    };
    outbox = new Outbox({
      self: 1,
      clock,
      toPeer: note('peer'),
      toSelf: note('self'),
      toSnapshots: note('snapshot'),
    });
  });

  it('sends every message where it belongs, in order', () => {
    outbox.send([
      message(RAFT_VOTE, 1, 0),
      message(RAFT_APPEND, 2, 1, 3),
      message(RAFT_HEARTBEAT, 3, 1),
      message(RAFT_SNAPSHOT, 3, 1),
    ]);
    assert.deepEqual(sent, [
      'self RAFT_VOTE to 1 commit 0',
      'peer RAFT_APPEND to 2 commit 1',
      'peer RAFT_HEARTBEAT to 3 commit 1',
      'snapshot RAFT_SNAPSHOT to 3 commit 1',
    ]);
    assert.deepEqual(timers, []);
  });

  it('holds appends without entries back, and sends the newest for each peer', () => {
    outbox.send([message(RAFT_APPEND, 2, 1), message(RAFT_APPEND, 3, 1), message(RAFT_APPEND, 2, 4)]);
    assert.deepEqual(sent, []);
    assert.equal(timers.length, 1);
    ring(25);
    assert.deepEqual(sent, ['peer RAFT_APPEND to 2 commit 4', 'peer RAFT_APPEND to 3 commit 1']);
  });

  it('drops what it holds when an append with entries says the same', () => {
    outbox.send([message(RAFT_APPEND, 2, 1), message(RAFT_APPEND, 3, 1), message(RAFT_APPEND, 2, 1, 1)]);
    ring(25);
    assert.deepEqual(sent, ['peer RAFT_APPEND to 2 commit 1', 'peer RAFT_APPEND to 3 commit 1']);
    outbox.send([message(RAFT_APPEND, 2, 2)]);
    assert.equal(timers.length, 1, 'the next one is held anew');
  });

  it('does not send what was held for a moment only, and nothing of it for longer than that', () => {
    outbox.send([message(RAFT_APPEND, 2, 1), message(RAFT_APPEND, 3, 1)]);
    now += 20;
    outbox.send([message(RAFT_APPEND, 2, 1, 1), message(RAFT_APPEND, 2, 2), message(RAFT_APPEND, 3, 2)]);
    sent.splice(0);
    ring(5);
    assert.deepEqual(sent.splice(0), ['peer RAFT_APPEND to 3 commit 2'], 'that to the other one is new');
    ring(20);
    assert.deepEqual(sent, ['peer RAFT_APPEND to 2 commit 2']);
    assert.deepEqual(timers, []);
  });

  it('sends nothing after it was closed', () => {
    outbox.send([message(RAFT_APPEND, 2, 1)]);
    outbox.close();
    assert.deepEqual(timers, []);
    assert.deepEqual(sent, []);
  });
});
