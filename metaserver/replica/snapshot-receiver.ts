import { crc32c } from '../../common/crc32c.js';
import { type Disk, type DiskFile, diskErrorCode } from '../../common/disk.js';
import type { Logger } from '../../common/logger.js';
import { RaftAccepted, type SnapshotChunk } from '../../proto/gen/raft.js';
import type { LogBase } from './log-records.js';
import type { PeerStream } from './peer-link.js';
import { SNAPSHOT_WINDOW_CHUNKS } from './snapshot-sender.js';

/** Chunks that may wait to be written; a sender keeps within its window. */
const CHUNKS_WAITING_MAX = SNAPSHOT_WINDOW_CHUNKS * 2;

export interface SnapshotReceive {
  disk: Disk;
  /** The new file that takes the copy. */
  path: string;
  from: number;
  stream: PeerStream;
  log: Logger;
  /** Takes the verified, durable copy and the file with it. Resolves with the reason when it is not wanted. */
  install(meta: LogBase, term: number, from: number, path: string): Promise<string | undefined>;
}

/** Takes one snapshot from one stream: checks every chunk, writes it down, acknowledges it. */
export class SnapshotReceiver {
  readonly #options: SnapshotReceive;
  #file: DiskFile | undefined;
  #meta: LogBase | undefined;
  #term = 0;
  #total = 0;
  #written = 0;
  #waiting = 0;
  #ended = false;
  #work: Promise<void> = Promise.resolve();

  constructor(options: SnapshotReceive) {
    this.#options = options;
    options.stream.onEnd(() => this.abort('the stream ended'));
  }

  /** No more chunks are taken: handed over or given up. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Takes the next chunk; what is wrong with it ends the stream. */
  chunk(chunk: SnapshotChunk): void {
    if (this.#ended) return;
    if (++this.#waiting > CHUNKS_WAITING_MAX) {
      this.abort('more chunks than the window');
      return;
    }
    this.#work = this.#work
      .then(() => (this.#ended ? undefined : this.#take(chunk)))
      .catch((error: unknown) => this.abort(error instanceof Error ? error.message : String(error)));
  }

  /** Gives up: the stream ends and the file goes. Idempotent. */
  abort(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#options.log.warn({ peer: this.#options.from, reason }, 'snapshot not received');
    this.#refuse(reason);
    this.#work = this.#work.then(() => this.#discard());
  }

  /** Resolves when the file is closed or handed over. */
  settled(): Promise<void> {
    return this.#work;
  }

  async #take(chunk: SnapshotChunk): Promise<void> {
    await this.#check(chunk);
    if (!this.#file || !this.#meta) return;
    await this.#file.write([chunk.data], chunk.offset);
    this.#written += chunk.data.length;
    this.#waiting--;
    if (chunk.last) await this.#finish(this.#file, this.#meta);
    else this.#options.stream.send({ body: { $case: 'accepted', value: RaftAccepted.create() } });
  }

  async #check(chunk: SnapshotChunk): Promise<void> {
    const { meta } = chunk;
    if (!meta?.conf) throw new Error('chunk without a place in the log');
    if (chunk.offset !== this.#written)
      throw new Error(`chunk at ${chunk.offset} where ${this.#written} belongs`);
    if (crc32c(chunk.data) !== chunk.crc32c) throw new Error(`chunk at ${chunk.offset} has a wrong checksum`);
    if (!this.#file) {
      this.#meta = { index: meta.index, term: meta.term, conf: meta.conf };
      this.#term = chunk.term;
      this.#total = chunk.total;
      this.#file = await this.#options.disk.open(this.#options.path, 'create');
    }
    const same =
      meta.index === this.#meta?.index && meta.term === this.#meta.term && chunk.term === this.#term;
    if (!same || chunk.total !== this.#total) throw new Error('chunk of another snapshot');
    const end = chunk.offset + chunk.data.length;
    if (end > this.#total || chunk.last !== (end === this.#total)) throw new Error('chunk beyond the end');
  }

  async #finish(file: DiskFile, meta: LogBase): Promise<void> {
    await file.datasync();
    await file.close();
    this.#file = undefined;
    const { stream, install, from, path } = this.#options;
    this.#ended = true;
    const refused = await install(meta, this.#term, from, path);
    if (refused !== undefined) this.#refuse(refused);
    else stream.send({ body: { $case: 'accepted', value: RaftAccepted.create() } });
    await this.#discard();
  }

  #refuse(reason: string): void {
    this.#options.stream.send({ body: { $case: 'refused', value: { reason } } });
    this.#options.stream.end();
  }

  async #discard(): Promise<void> {
    const { disk, path, log } = this.#options;
    try {
      await this.#file?.close();
      this.#file = undefined;
      await disk.unlink(path);
    } catch (error) {
      if (diskErrorCode(error) !== 'ENOENT') log.error({ err: error, path }, 'cannot remove a snapshot file');
    }
  }
}
