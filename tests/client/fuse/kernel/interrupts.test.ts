import assert from 'node:assert/strict';
import { Call } from '../../../../client/fuse/kernel/call.js';
import {
  INTERRUPT_PATIENCE_MS,
  INTERRUPT_POLL_INTERVAL_MS,
  Interrupts,
  isDying,
  parseSignals,
  type Signals,
} from '../../../../client/fuse/kernel/interrupts.js';
import { Opcode } from '../../../../client/fuse/kernel/protocol.js';
import { ManualClock } from '../../support/manual-clock.js';

const NONE: Signals = { pending: 0n, blocked: 0n, ignored: 0n, caught: 0n };
const [SIGINT, SIGQUIT, SIGKILL, SIGALRM, SIGCHLD, SIGTSTP] = [2, 3, 9, 14, 17, 20].map(
  (signal) => 1n << BigInt(signal - 1),
) as [bigint, bigint, bigint, bigint, bigint, bigint];
const PID = 77;

function callOf(opcode: number): Call {
  return new Call({ length: 40, opcode, unique: 6, ino: 1, uid: 0, gid: 0, pid: PID });
}

describe('the interrupts of requests', () => {
  let clock: ManualClock;
  let signals: Signals | undefined;
  let asked: number[];
  let interrupts: Interrupts;

  beforeEach(() => {
    clock = new ManualClock();
    signals = NONE;
    asked = [];
    interrupts = new Interrupts(clock, (pid) => {
      asked.push(pid);
      return signals;
    });
  });

  it('are read from /proc: what waits for the thread and for its process', () => {
    const status =
      'Name:\tx\nSigQ:\t0/9\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000000001\n' +
      'SigIgn:\t0000000000000002\nSigCgt:\t0000000180000000\n';
    const caught = 0x180000000n;
    assert.deepEqual(parseSignals(status), { pending: 0x2100n, blocked: 1n, ignored: 2n, caught });
    assert.equal(parseSignals('Name:\tx\n'), undefined);
  });

  it('a process is dying when a signal waits that it neither catches nor blocks nor ignores, and that ends it', () => {
    assert.equal(isDying({ ...NONE, pending: SIGKILL, blocked: -1n, caught: -1n }), true);
    for (const pending of [SIGINT, SIGQUIT, SIGALRM]) {
      assert.equal(isDying({ ...NONE, pending }), true);
      assert.equal(isDying({ ...NONE, pending, blocked: pending }), false);
      assert.equal(isDying({ ...NONE, pending, ignored: pending }), false);
      assert.equal(isDying({ ...NONE, pending, caught: pending }), false);
    }
    for (const pending of [SIGCHLD, SIGTSTP]) assert.equal(isDying({ ...NONE, pending }), false);
  });

  it('end a call at once when its process is dying', () => {
    const call = callOf(Opcode.MKDIR);
    signals = { ...NONE, pending: SIGINT };
    interrupts.interrupt(call);
    assert.deepEqual([call.aborted, asked, clock.timers], [true, [PID], 0]);
  });

  it('end a wait for a lock at once, whatever the signal is', () => {
    const call = callOf(Opcode.SETLKW);
    interrupts.interrupt(call);
    assert.deepEqual([call.aborted, asked], [true, []]);
  });

  it('of a signal that a program catches change nothing, for however long', async () => {
    const call = callOf(Opcode.MKDIR);
    signals = { ...NONE, pending: SIGALRM, caught: SIGALRM };
    interrupts.interrupt(call);
    await clock.advance(10 * INTERRUPT_PATIENCE_MS);
    assert.equal(call.aborted, false);
    interrupts.settled(call);
    assert.equal(clock.timers, 0);
  });

  it('are followed by a look for further signals, of which the kernel does not tell', async () => {
    const call = callOf(Opcode.MKDIR);
    signals = { ...NONE, pending: SIGALRM, caught: SIGALRM };
    interrupts.interrupt(call);
    signals = { ...signals, pending: SIGALRM | SIGKILL };
    await clock.advance(INTERRUPT_POLL_INTERVAL_MS);
    assert.deepEqual([call.aborted, clock.timers], [true, 0]);
  });

  it('of a program that catches ^C end its call when that is blocked for longer than a fail-over takes', async () => {
    const call = callOf(Opcode.FSYNC);
    signals = { ...NONE, pending: SIGINT, caught: SIGINT };
    interrupts.interrupt(call);
    await clock.advance(INTERRUPT_PATIENCE_MS - 1);
    assert.equal(call.aborted, false);
    await clock.advance(INTERRUPT_POLL_INTERVAL_MS);
    assert.deepEqual([call.aborted, clock.timers], [true, 0]);
  });

  it('of a process that cannot be seen end its call when that is blocked for as long', async () => {
    const call = callOf(Opcode.FSYNC);
    signals = undefined;
    interrupts.interrupt(call);
    assert.equal(call.aborted, false);
    await clock.advance(INTERRUPT_PATIENCE_MS);
    assert.equal(call.aborted, true);
  });

  it('are forgotten with the answer, and one timer serves all', async () => {
    const [first, second] = [callOf(Opcode.MKDIR), callOf(Opcode.RMDIR)];
    interrupts.interrupt(first);
    interrupts.interrupt(second);
    assert.equal(clock.timers, 1);
    interrupts.settled(first);
    asked.length = 0;
    await clock.advance(INTERRUPT_POLL_INTERVAL_MS);
    assert.equal(asked.length, 1);
    interrupts.settled(second);
    assert.equal(clock.timers, 0);
  });
});
