import type { Clock, Timer } from '../../common/clock.js';
import { type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';

/**
 * An append without entries is held back so long: it tells a follower little more than the new commit index, and the next append
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

/** Sends the core's messages where they belong. */
export class Outbox {
  readonly #options: OutboxOptions;
  /** The held append of each peer. */
  readonly #held = new Map<number, RaftMessage>();
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
    this.#held.set(message.to, message);
    this.#timer ??= this.#options.clock.after(EMPTY_APPEND_DELAY_MS, () => this.#release(), { weak: true });
  }

  #release(): void {
    this.#timer = undefined;
    for (const message of this.#held.values()) this.#options.toPeer(message);
    this.#held.clear();
  }

  close(): void {
    this.#timer?.cancel();
    this.#held.clear();
  }
}
