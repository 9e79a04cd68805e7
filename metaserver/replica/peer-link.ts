import { backOffMs } from '../../common/backoff.js';
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type { RaftAccepted, RaftEnvelope, RaftHello, RaftMessage } from '../../proto/gen/raft.js';
import { RaftServiceDefinition } from '../../proto/gen/raft.js';
import type { RpcChannel, RpcDialer, RpcStream } from '../../proto/rpc.js';
import { isDiskUuid } from './format.js';

export type PeerStream = RpcStream<RaftEnvelope, RaftEnvelope>;

/** A lost connection is dialled again after the first delay, doubled with each failure up to the last. */
const REDIAL_FIRST_MS = 20;
const REDIAL_MAX_MS = 1_000;
/** After a refusal, which only an operator can remove. */
const REDIAL_REFUSED_MS = 2_000;
/** No answer to hello for so long: dial again. */
const HELLO_TIMEOUT_MS = 2_000;
/** Messages that wait to be sent to one peer; further ones are dropped, Raft repeats what matters. */
export const PEER_QUEUE_MAX = 512;
/** The queue stayed full for so long: the connection is given up. */
const STALL_MAX_MS = 3_000;
/**
 * A peer that was sent messages answers some of them, on its own stream. After so long without a word the connection is made anew:
 * after a silent cut, TCP alone would wait about as long again as the cut lasted.
 */
const UNANSWERED_MAX_MS = 3_000;

export interface PeerLinkOptions {
  /** Where the peer may listen, likeliest first, at least one; after a failure the next one is tried. */
  addresses(): string[];
  hello: RaftHello;
  clock: Clock;
  prng: Prng;
  log: Logger;
  dial: RpcDialer;
  /** Messages can be sent: to the member that the answer names. */
  onUp(answer: RaftAccepted): void;
  /** The connection broke, or an attempt to make one failed. */
  onDown(): void;
}

/** The dialling side of one ordered pair: one long-lived stream, made anew when it breaks. */
export class PeerLink {
  readonly #options: PeerLinkOptions;
  #channel: RpcChannel | undefined;
  #stream: PeerStream | undefined;
  #connected = false;
  #closed = false;
  #failures = 0;
  #timer: Timer | undefined;
  #fullSinceMs: number | undefined;
  /** The first message sent since the peer was last heard. */
  #unansweredSinceMs: number | undefined;
  #lastReason = '';
  #address = '';
  /** Which of the addresses is tried. */
  #attempt = 0;
  /** Messages dropped because the queue was full. */
  dropped = 0;

  constructor(options: PeerLinkOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Where it was dialled last. */
  get address(): string {
    return this.#address;
  }

  start(): void {
    this.#dial();
  }

  /** The peer was heard from: an attempt that waits for its turn is made at once. */
  hurry(): void {
    if (this.#stream || this.#closed || !this.#timer) return;
    this.#timer.cancel();
    this.#dial();
  }

  /** Queues a message. @returns false when it was dropped: not connected, or the queue is full. */
  send(message: RaftMessage): boolean {
    const stream = this.#stream;
    if (!this.#connected || !stream || this.#silentTooLong(stream)) return false;
    if (stream.queued >= PEER_QUEUE_MAX) {
      this.#full(stream);
      return false;
    }
    this.#fullSinceMs = undefined;
    stream.send({ body: { $case: 'message', value: message } });
    return true;
  }

  /** A message came from the peer, on whatever stream. */
  heard(): void {
    this.#unansweredSinceMs = undefined;
  }

  #silentTooLong(stream: PeerStream): boolean {
    const now = this.#options.clock.now();
    this.#unansweredSinceMs ??= now;
    if (now - this.#unansweredSinceMs < UNANSWERED_MAX_MS) return false;
    stream.destroy('the peer does not answer');
    return true;
  }

  #full(stream: PeerStream): void {
    this.dropped++;
    const now = this.#options.clock.now();
    this.#fullSinceMs ??= now;
    if (now - this.#fullSinceMs >= STALL_MAX_MS) stream.destroy('the peer does not read');
  }

  /** A stream of its own beside the messages, for a snapshot; undefined when not connected. */
  openStream(): PeerStream | undefined {
    return this.#connected ? this.#open(this.#channel as RpcChannel) : undefined;
  }

  #open(channel: RpcChannel): PeerStream {
    return channel.openStream(RaftServiceDefinition.fullName, RaftServiceDefinition.methods.channel);
  }

  #dial(): void {
    // A new channel each time: an old one would wait for its own back-off first.
    this.#channel?.close();
    const addresses = this.#options.addresses();
    this.#address = addresses[this.#attempt % addresses.length] as string;
    const channel = this.#options.dial(this.#address);
    const stream = this.#open(channel);
    this.#channel = channel;
    this.#stream = stream;
    this.#fullSinceMs = undefined;
    this.#unansweredSinceMs = undefined;
    this.#timer = this.#options.clock.after(HELLO_TIMEOUT_MS, () => stream.destroy('no answer to hello'), {
      weak: true,
    });
    let refused = false;
    stream.onMessage(({ body }) => {
      if (this.#stream !== stream) return;
      if (body?.$case === 'accepted' && isDiskUuid(body.value.diskUuid)) this.#up(body.value);
      else if (body?.$case === 'refused') {
        refused = true;
        stream.destroy(`refused: ${body.value.reason}`);
      } else stream.destroy('malformed answer to hello');
    });
    stream.onEnd((reason) => {
      if (this.#stream === stream) this.#down(reason, refused);
    });
    stream.send({ body: { $case: 'hello', value: this.#options.hello } });
  }

  #up(answer: RaftAccepted): void {
    if (this.#connected) return;
    this.#timer?.cancel();
    this.#connected = true;
    this.#failures = 0;
    this.#lastReason = '';
    this.#options.log.info({ address: this.#address, disk: answer.diskUuid }, 'connected to peer');
    this.#options.onUp(answer);
  }

  #down(reason: string, refused: boolean): void {
    this.#timer?.cancel();
    this.#stream = undefined;
    // An address that worked is tried again first.
    if (!this.#connected) this.#attempt++;
    this.#connected = false;
    if (this.#closed) return;
    // Once for each reason, not for each attempt.
    const { log, prng, clock } = this.#options;
    const address = this.#address;
    if (reason !== this.#lastReason) {
      if (refused) log.error({ address, reason }, 'peer refused the connection');
      else log.info({ address, reason }, 'no connection to peer');
      this.#lastReason = reason;
    }
    const backOff = backOffMs(++this.#failures, REDIAL_FIRST_MS, REDIAL_MAX_MS);
    const delayMs = refused ? REDIAL_REFUSED_MS : backOff * (0.5 + prng.float() / 2);
    this.#timer = clock.after(delayMs, () => this.#dial(), { weak: true });
    this.#options.onDown();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    this.#stream?.destroy('closed');
    this.#connected = false;
    this.#channel?.close();
  }
}
