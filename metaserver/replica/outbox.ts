import type { Clock, Timer } from '../../common/clock.js';
import { type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';

/**
 * An append without entries is held back so long at most: it tells a follower little more than the new commit index, and the next append
 * with entries says that too. Without this, every lone proposal would cost each follower two messages and two answers. It is longer
 * than a client that syncs write after write takes between two of them, and shorter than what tells of a lost message by itself,
 * the heartbeat.
 */
const EMPTY_APPEND_DELAY_MS = 25;

export interface OutboxOptions {
  /** This server's member. */
  self: number;
  clock: Clock;
  /** Over the network. What is dropped there, Raft finds out by its heartbeats and sends again. */
  toPeer(message: RaftMessage): void;
  /** A message of this server to itself. */
  toSelf(message: RaftMessage): void;
  toSnapshots(message: RaftMessage): void;
}

interface Held {
  /** The newest. */
  message: RaftMessage;
  /** When the oldest since the last append with entries has been held for long enough. */
  readonly due: number;
}

/** Sends the core's messages where they belong. */
export class Outbox {
  readonly #options: OutboxOptions;
  /** The held append of each peer. */
  readonly #held = new Map<number, Held>();
  #timer: Timer | undefined;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  send(messages: readonly RaftMessage[]): void {
    for (const message of messages) {
      if (message.to === this.#options.self) this.#options.toSelf(message);
      else if (message.type === RaftMessageType.RAFT_SNAPSHOT) this.#options.toSnapshots(message);
      else if (message.type === RaftMessageType.RAFT_APPEND) this.#append(message);
      else this.#options.toPeer(message);
    }
  }

  #append(message: RaftMessage): void {
    if (message.entries.length > 0) {
      // It says all that the held one does: an append is sent after a probe only when the probe was answered.
      this.#held.delete(message.to);
      this.#options.toPeer(message);
      return;
    }
    const held = this.#held.get(message.to);
    if (held) held.message = message;
    else this.#held.set(message.to, { message, due: this.#options.clock.now() + EMPTY_APPEND_DELAY_MS });
    this.#wakeIn(EMPTY_APPEND_DELAY_MS);
  }

  #wakeIn(ms: number): void {
    this.#timer ??= this.#options.clock.after(ms, () => this.#release(), { weak: true });
  }

  /** Where appends with entries follow one another there is always one held, and none of them is ever due. */
  #release(): void {
    this.#timer = undefined;
    const now = this.#options.clock.now();
    let next = Number.POSITIVE_INFINITY;
    for (const [peer, { message, due }] of this.#held) {
      if (due > now) next = Math.min(next, due);
      else {
        this.#held.delete(peer);
        this.#options.toPeer(message);
      }
    }
    if (this.#held.size > 0) this.#wakeIn(next - now);
  }

  close(): void {
    this.#timer?.cancel();
    this.#held.clear();
  }
}
