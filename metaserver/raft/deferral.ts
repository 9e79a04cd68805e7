import { isJoint, isVoter } from './confchange.js';
import type { Progress } from './progress.js';
import type { Raft } from './raft.js';

/** So many entries wait for a peer at most. */
export const DEFERRED_ENTRIES_MAX = 64;

/**
 * Of the followers only as many as a majority needs beside the leader get each entry at once: those that stand first in
 * `raft.peers`. The others get what gathers within `deferMs` in one append: one message, one sync and one answer instead of one of
 * each an entry. A slow network would do the same to them, so nothing but speed depends on this.
 *
 * Where nothing is committed for `patienceMs`, everybody gets what there is, and whoever kept the others waiting falls back
 * behind them.
 */
export function isDeferred(raft: Raft, id: number, peer: Progress): boolean {
  const waiting = raft.log.lastIndex() + 1 - peer.next;
  if (waiting <= 0 || waiting > DEFERRED_ENTRIES_MAX || !isSpare(raft, id)) return false;
  if (peer.deferredSinceMs === Number.POSITIVE_INFINITY) peer.deferredSinceMs = raft.nowMs;
  return raft.nowMs < deadlineMs(raft, peer);
}

/** When entries that wait have to be sent; Infinity: none wait. */
export function deferralDeadlineMs(raft: Raft): number {
  let earliest = Number.POSITIVE_INFINITY;
  for (const peer of raft.peers.values()) earliest = Math.min(earliest, deadlineMs(raft, peer));
  return earliest;
}

/** To be called before a peer is sent all that there is. */
export function endDeferral(raft: Raft, peer: Progress): void {
  if (peer.deferredSinceMs === Number.POSITIVE_INFINITY) return;
  peer.deferredSinceMs = Number.POSITIVE_INFINITY;
  if (raft.nowMs >= raft.commitDueMs) demoteLate(raft);
}

function deadlineMs(raft: Raft, { deferredSinceMs }: Progress): number {
  if (deferredSinceMs === Number.POSITIVE_INFINITY) return deferredSinceMs;
  return Math.min(deferredSinceMs + raft.config.deferMs, raft.commitDueMs);
}

/** Those that were sent the oldest uncommitted entry and have not acknowledged it go to the end. */
function demoteLate(raft: Raft): void {
  const { committed } = raft.log;
  for (const [id, peer] of [...raft.peers]) {
    if (peer.match > committed || peer.next <= committed + 1) continue;
    raft.peers.delete(id);
    raft.peers.set(id, peer);
  }
}

/** True for a voter that a majority does not need: enough others take part. */
function isSpare(raft: Raft, id: number): boolean {
  const { conf, config } = raft;
  if (config.deferMs === 0 || raft.transferee !== 0 || isJoint(conf)) return false;
  if (!isVoter(conf, raft.id) || !isVoter(conf, id)) return false;
  let needed = conf.voters.length >> 1;
  for (const [each, { state }] of raft.peers) {
    if (needed === 0) return true;
    if (each === id) return false;
    if (state === 'replicate' && isVoter(conf, each)) needed--;
  }
  return false;
}
