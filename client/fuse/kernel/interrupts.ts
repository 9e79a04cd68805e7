import type { Clock, Timer } from '../../../common/clock.js';
import type { Call } from './call.js';
import { Opcode } from './protocol.js';

/** How often a process that was interrupted is looked at again: the kernel tells of its first signal alone. */
export const INTERRUPT_POLL_INTERVAL_MS = 100;
/** A process that catches SIGINT or its like gets EINTR of a call that is blocked for so long: longer than any fail-over. */
export const INTERRUPT_PATIENCE_MS = 5_000;

/** The signals of one thread and its process, as sets of bits: signal n is bit n - 1. */
export interface Signals {
  pending: bigint;
  blocked: bigint;
  ignored: bigint;
  caught: bigint;
}

const bit = (signal: number): bigint => 1n << BigInt(signal - 1);
const bits = (signals: readonly number[]): bigint => signals.reduce((all, signal) => all | bit(signal), 0n);

const SIGKILL = bit(9);
/** SIGHUP, SIGINT, SIGQUIT, SIGTERM: somebody wants the process to end. */
const TERMINATING = bits([1, 2, 3, 15]);
/** What ends no process that leaves it alone: SIGCHLD, SIGCONT, SIGURG, SIGWINCH; SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU. */
const HARMLESS = bits([17, 18, 23, 28, 19, 20, 21, 22]);

/** @param status of /proc/PID/status (proc(5)) */
export function parseSignals(status: string): Signals | undefined {
  const set = (name: string): bigint => {
    const hex = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
    return hex === undefined ? 0n : BigInt(`0x${hex}`);
  };
  if (!status.includes('SigPnd:')) return undefined;
  return {
    pending: set('SigPnd') | set('ShdPnd'),
    blocked: set('SigBlk'),
    ignored: set('SigIgn'),
    caught: set('SigCgt'),
  };
}

/** Whether the process ends as soon as its call does: nobody will see what the call said. */
export function isDying({ pending, blocked, ignored, caught }: Signals): boolean {
  return (pending & (SIGKILL | ~(blocked | ignored | caught | HARMLESS))) !== 0n;
}

/** Whether a signal waits that asks a process to end, and that the process handles itself. */
export function isAskedToEnd({ pending, blocked, caught }: Signals): boolean {
  return (pending & caught & ~blocked & TERMINATING) !== 0n;
}

/**
 * Decides what FUSE_INTERRUPT does. The kernel sends it whatever the signal is, and passes EINTR on to the program even where
 * its handler was installed with SA_RESTART. A call on a local disk is never interrupted, and programs that live with timers
 * and children rely on that. So here:
 * - a wait for a lock ends at once (the kernel starts it again where the handler says so);
 * - any other call ends when its process is dying, or when it is asked to end and the call is blocked for INTERRUPT_PATIENCE_MS;
 * - else the call goes on as if nothing had happened.
 */
export class Interrupts {
  /** Calls that were interrupted and go on, and since when. At most as many as are in flight. */
  private readonly waiting = new Map<Call, number>();
  private timer: Timer | undefined;

  /** @param signalsOf a thread's; undefined when it cannot be seen from here */
  constructor(
    private readonly clock: Clock,
    private readonly signalsOf: (pid: number) => Signals | undefined,
  ) {}

  interrupt(call: Call): void {
    if (call.opcode === Opcode.SETLKW) call.interrupt();
    else if (!this.waiting.has(call)) this.consider(call, this.clock.now());
  }

  /** The call was answered. */
  settled(call: Call): void {
    if (this.waiting.size === 0 || !this.waiting.delete(call)) return;
    if (this.waiting.size === 0) this.stop();
  }

  private consider(call: Call, since: number): void {
    const signals = this.signalsOf(call.pid);
    const lost = signals === undefined || isAskedToEnd(signals);
    const patient = this.clock.now() - since < INTERRUPT_PATIENCE_MS;
    if ((signals && isDying(signals)) || (lost && !patient)) {
      this.settled(call);
      call.interrupt();
      return;
    }
    this.waiting.set(call, since);
    this.timer ??= this.clock.every(INTERRUPT_POLL_INTERVAL_MS, () => this.lookAgain(), { weak: true });
  }

  private lookAgain(): void {
    for (const [call, since] of [...this.waiting]) this.consider(call, since);
  }

  private stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }
}
