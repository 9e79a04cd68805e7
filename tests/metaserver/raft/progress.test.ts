import assert from 'node:assert/strict';
import { Inflights, MAX_INFLIGHT_APPENDS, Progress } from '../../../metaserver/raft/progress.js';

describe('the window of appends in flight', () => {
  it('fills by bytes, lets the last append exceed them, and frees in order', () => {
    const window = new Inflights(100);
    window.add(3, 60);
    assert.equal(window.full, false);
    window.add(5, 60);
    assert.deepEqual([window.full, window.bytes, window.count], [true, 120, 2]);
    assert.throws(() => window.add(6, 1), /full/);
    window.free(4);
    assert.deepEqual([window.full, window.bytes, window.count], [false, 60, 1]);
    window.free(5);
    assert.deepEqual([window.bytes, window.count], [0, 0]);
  });

  it('fills by count, and works around the end of its ring', () => {
    const window = new Inflights(Number.MAX_SAFE_INTEGER);
    for (let round = 0; round < 3; round++) {
      const base = round * MAX_INFLIGHT_APPENDS;
      for (let i = 1; i <= MAX_INFLIGHT_APPENDS; i++) window.add(base + i, 2);
      assert.equal(window.full, true);
      window.free(base + 10);
      assert.equal(window.bytes, (MAX_INFLIGHT_APPENDS - 10) * 2);
      window.free(base + MAX_INFLIGHT_APPENDS);
      assert.equal(window.bytes, 0);
    }
  });
});

describe('the progress of a peer', () => {
  function probing(match: number, next: number): Progress {
    const peer = new Progress(next, 1000, 0);
    peer.acknowledge(match);
    peer.next = next;
    return peer;
  }

  it('steps back to the hint, never to or behind what is acknowledged', () => {
    const peer = probing(5, 20);
    assert.equal(peer.reject(19, 11), true);
    assert.equal(peer.next, 12);
    assert.equal(peer.reject(11, 2), true);
    assert.equal(peer.next, 6);
  });

  it('ignores rejections that are out of date', () => {
    const peer = probing(5, 20);
    assert.equal(peer.reject(18, 3), false);
    assert.equal(peer.reject(5, 3), false);
    assert.deepEqual([peer.match, peer.next], [5, 20]);
  });

  it('sends one append while probing, many while replicating, none during a snapshot', () => {
    const peer = probing(5, 6);
    peer.sent(8, 50, 0);
    assert.deepEqual([peer.paused, peer.next], [true, 6]);
    peer.acknowledge(8);
    peer.becomeReplicate();
    peer.sent(10, 500, 0);
    assert.deepEqual([peer.paused, peer.next], [false, 11]);
    peer.sent(12, 500, 0);
    assert.deepEqual([peer.paused, peer.next], [true, 13]);
    peer.becomeSnapshot(40);
    assert.deepEqual([peer.paused, peer.inflights.bytes], [true, 0]);
    peer.becomeProbe();
    assert.deepEqual([peer.state, peer.next, peer.paused], ['probe', 41, false]);
  });

  it('sends again from what is acknowledged when appends were lost', () => {
    const peer = probing(5, 6);
    peer.becomeReplicate();
    peer.sent(10, 500, 0);
    assert.equal(peer.reject(10, 7), true);
    peer.becomeProbe();
    assert.deepEqual([peer.next, peer.inflights.count], [6, 0]);
  });
});
