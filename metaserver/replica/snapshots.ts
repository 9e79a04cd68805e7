import path from 'node:path';
import type { Clock } from '../../common/clock.js';
import { delay } from '../../common/clock.js';
import { type Disk, diskErrorCode } from '../../common/disk.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import type { RaftHello, RaftMessage, SnapshotChunk } from '../../proto/gen/raft.js';
import type { LogBase } from './log-records.js';
import type { PeerStream } from './peer-link.js';
import { SnapshotReceiver } from './snapshot-receiver.js';
import { sendSnapshot } from './snapshot-sender.js';
import type { StateMachine } from './state-machine.js';

/** After an attempt that failed the next one waits so long: each costs a copy of the whole state. */
const RETRY_MS = 1_000;

export interface SnapshotsOptions {
  disk: Disk;
  /** The replica's directory; copies on their way lie in `snapshot` below it. */
  dir: string;
  stateMachine: Pick<StateMachine<unknown>, 'appliedIndex' | 'backup'>;
  clock: Clock;
  log: Logger;
  /** A stream to a member, and what it begins with; undefined when the member is not connected. */
  openStream(to: number): { stream: PeerStream; hello: RaftHello } | undefined;
  /** Term and members at an index of the log. */
  metaAt(index: number): LogBase | undefined;
  /** A send has ended, well or not. */
  report(to: number, ok: boolean): void;
  /** See SnapshotReceive. */
  install(meta: LogBase, term: number, from: number, path: string): Promise<string | undefined>;
}

interface Sending {
  /** The log must be kept behind it until the receiver goes on from the snapshot. */
  pin: number;
  stream?: PeerStream;
  aborted: boolean;
  done: Promise<void>;
}

/** Snapshots on their way: at most one to each peer, at most one being received. */
export class Snapshots {
  readonly #options: SnapshotsOptions;
  readonly #dir: string;
  readonly #sending = new Map<number, Sending>();
  #receiver: SnapshotReceiver | undefined;
  #files = 0;

  constructor(options: SnapshotsOptions) {
    this.#options = options;
    this.#dir = path.join(options.dir, 'snapshot');
  }

  /** Removes what an earlier run left. */
  async prepare(): Promise<void> {
    const { disk } = this.#options;
    await disk.mkdir(this.#dir);
    for (const name of await disk.list(this.#dir)) await disk.unlink(path.join(this.#dir, name));
  }

  /** Lowest index that a send still needs the log from; Infinity without one. */
  pinned(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const { pin } of this.#sending.values()) lowest = Math.min(lowest, pin);
    return lowest;
  }

  /** Starts what a RAFT_SNAPSHOT message asks for; `report` tells how it ended. */
  send(message: RaftMessage): void {
    const { to, term } = message;
    if (this.#sending.has(to)) return; // its end is reported
    const { stateMachine } = this.#options;
    const sending: Sending = { pin: stateMachine.appliedIndex(), aborted: false, done: Promise.resolve() };
    this.#sending.set(to, sending);
    sending.done = this.#run(sending, to, term);
  }

  /** Gives up all sends; resolves when none uses the state machine any more. */
  async abortSends(): Promise<void> {
    const all = [...this.#sending.values()];
    for (const sending of all) {
      sending.aborted = true;
      sending.stream?.destroy('snapshot given up');
    }
    await Promise.all(all.map(({ done }) => done));
  }

  /** Takes the chunks of a stream; an older snapshot that is still being received is given up. */
  receive(from: number, stream: PeerStream): (chunk: SnapshotChunk) => void {
    const { disk, log, install } = this.#options;
    this.#receiver?.abort('a newer snapshot comes');
    const file = path.join(this.#dir, `receive-${from}-${++this.#files}`);
    const receiver = new SnapshotReceiver({ disk, path: file, from, stream, log, install });
    this.#receiver = receiver;
    return (chunk) => receiver.chunk(chunk);
  }

  async close(): Promise<void> {
    this.#receiver?.abort('server stops');
    await this.abortSends();
    await this.#receiver?.settled();
  }

  async #run(sending: Sending, to: number, term: number): Promise<void> {
    const { log, report, clock } = this.#options;
    const file = path.join(this.#dir, `send-${to}-${++this.#files}`);
    let ok = false;
    try {
      const { index, bytes } = await this.#attempt(sending, file, to, term);
      log.info({ peer: to, index, bytes }, 'snapshot sent');
      ok = true;
    } catch (error) {
      log.warn({ peer: to, err: error }, 'snapshot not sent');
    }
    await this.#remove(file);
    this.#sending.delete(to);
    if (ok || sending.aborted) report(to, ok);
    else void delay(clock, RETRY_MS).then(() => report(to, false));
  }

  async #attempt(
    sending: Sending,
    file: string,
    to: number,
    term: number,
  ): Promise<{ index: number; bytes: number }> {
    const { disk, clock, stateMachine, openStream, metaAt, log } = this.#options;
    log.info({ peer: to }, 'snapshot for a peer that is far behind');
    const index = await stateMachine.backup(file);
    const meta = metaAt(index);
    const opened = sending.aborted ? undefined : openStream(to);
    if (!opened || !meta) throw new HoldfastError('UNAVAILABLE', 'peer not connected, or leadership lost');
    const { stream, hello } = opened;
    sending.stream = stream;
    const bytes = await sendSnapshot({ disk, path: file, meta, term, hello, stream, clock });
    return { index, bytes };
  }

  async #remove(file: string): Promise<void> {
    const { disk, log } = this.#options;
    try {
      await disk.unlink(file);
    } catch (error) {
      if (diskErrorCode(error) !== 'ENOENT') log.error({ err: error, file }, 'cannot remove a snapshot file');
    }
  }
}
