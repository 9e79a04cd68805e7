import { type ClientCall, clientCall } from '../../../../chunkserver/service/calls.js';
import { HoldfastError, toHoldfastError } from '../../../../proto/errors.js';
import {
  FRAME_FLAG_SYNC,
  type FrameFields,
  type FrameHeader,
  FrameType,
} from '../../../../proto/frame-header.js';
import { FrameError, type FrameReply } from '../../../../proto/frames.js';
import { type ClusterMap, ReplicaState } from '../../../../proto/gen/cluster.js';
import { lineageOf, survived } from '../../../../proto/lineage.js';
import type { Checker } from './checker.js';
import { frameOf } from './link.js';
import type { Simulation } from './simulation.js';

export const CHUNK_BYTES = 8;
export const INODES = 3;
export const CHUNKS = 3;
/** Of writeOnce(): nobody truncates it. */
const UNCUT_INODE = INODES + 1;
const CELL_BYTES = 2;
const CELLS = CHUNK_BYTES / CELL_BYTES;
const ANSWER_TIMEOUT_MS = 2500;
/** From an acknowledged write to its SYNC. */
const UNSYNCED_MS = 200;
const SYNC_RETRY_MS = 50;

/** What all clients know of the files; one truncate or delete of an inode at a time, as the metaserver orders them. */
export class Files {
  nextValue = 1;
  nextTruncate = 1;
  /** Of each inode, the last truncate that is certainly done, and stays so. */
  readonly truncateSeqs = new Map<number, number>();
  /** Of each inode, the last truncate that was done, whatever a power cut has taken back since. */
  readonly doneSeqs = new Map<number, number>();
  readonly busy = new Set<number>();
}

interface OpVersion {
  epoch: number;
  seq: number;
}

interface Outcome {
  error: HoldfastError | undefined;
  reply: FrameReply;
}

/** Does one random operation after the other and tells the checker. */
export class SimClient {
  readonly #sim: Simulation;
  readonly #files: Files;
  readonly #checker: Checker;
  readonly #powerCuts: boolean;
  #map: ClusterMap;
  stopped = false;

  constructor(sim: Simulation, files: Files, checker: Checker, powerCuts: boolean) {
    this.#sim = sim;
    this.#files = files;
    this.#checker = checker;
    this.#powerCuts = powerCuts;
    this.#map = sim.authority.map;
    sim.clientMaps.push((map) => {
      if (map.version > this.#map.version) this.#map = map;
    });
    this.#later();
  }

  #later(): void {
    if (!this.stopped) this.#sim.clock.after(this.#sim.delay(10), () => void this.#operation());
  }

  async #operation(): Promise<void> {
    const { prng } = this.#sim;
    // One chunk is hot: reads and writes meet there.
    const hot = prng.int(2) === 0;
    const ino = hot ? 1 : 1 + prng.int(INODES);
    const chunk = hot ? 0 : prng.int(CHUNKS);
    const kind = prng.int(20);
    try {
      if (kind < 9) await this.#write(ino, chunk);
      else if (kind < 16) await this.read(ino, chunk);
      else if (kind < 17) await this.#reserve(ino, chunk);
      else if (kind < 19) await this.#cut(ino, 'truncate');
      else await this.#cut(ino, 'delete');
    } catch (error) {
      if (!(error instanceof HoldfastError)) this.#sim.fail(error as Error);
    }
    this.#later();
  }

  #cells(ino: number, chunk: number, from: number, count: number): string[] {
    return Array.from({ length: count }, (_, i) => `${ino}/${chunk}/${from + i}`);
  }

  async #write(ino: number, chunk: number): Promise<void> {
    const { prng, clock } = this.#sim;
    const from = prng.int(CELLS);
    const count = 1 + prng.int(CELLS - from);
    const value = this.#files.nextValue++;
    const payload = Buffer.alloc(count * CELL_BYTES);
    for (let i = 0; i < count; i++) payload.writeUInt16LE(value, i * CELL_BYTES);
    const truncateSeq = this.#files.truncateSeqs.get(ino) ?? 0;
    const flags = prng.int(this.#sim.syncsOneOf) === 0 ? FRAME_FLAG_SYNC : 0;
    const fields = { type: FrameType.WRITE, ino, chunk, offset: from * CELL_BYTES, truncateSeq, flags };
    const acked = this.#checker.write(this.#cells(ino, chunk, from, count), value, clock.now());
    const written = await this.#callTruncating(fields, payload);
    if (this.#powerCuts && flags === 0) {
      if (prng.int(this.#sim.syncsOneOf) > 0) return;
      // All servers may lose it before it is synced: whoever wrote it has to hear that.
      await this.#wait(this.#sim.delay(UNSYNCED_MS));
      if (!(await this.vouchedFor(versionOf(written)))) return;
      this.#sim.provenWrites++;
    }
    acked(clock.now());
  }

  /** No byte changes; replicas that have it and those that have not differ. */
  async #reserve(ino: number, chunk: number): Promise<void> {
    const { prng } = this.#sim;
    const offset = prng.int(CHUNK_BYTES);
    const length = 1 + prng.int(CHUNK_BYTES - offset);
    const truncateSeq = this.#files.truncateSeqs.get(ino) ?? 0;
    await this.#callTruncating(
      { type: FrameType.RESERVE, ino, chunk, offset, length, truncateSeq },
      undefined,
    );
  }

  #wait(ms: number): Promise<void> {
    return new Promise((resolve) => this.#sim.clock.after(ms, resolve));
  }

  /** Writes the value to all of one chunk. */
  async writeOnce(value: number, sync: boolean): Promise<{ written: OpVersion }> {
    const payload = Buffer.alloc(CHUNK_BYTES);
    for (let at = 0; at < CHUNK_BYTES; at += CELL_BYTES) payload.writeUInt16LE(value, at);
    const flags = sync ? FRAME_FLAG_SYNC : 0;
    const fields = { type: FrameType.WRITE, ino: UNCUT_INODE, flags };
    return { written: versionOf(await this.#repeat(fields, payload)) };
  }

  /** What writeOnce() left. */
  async readOnce(): Promise<number> {
    const fields = { type: FrameType.READ, ino: UNCUT_INODE, length: CHUNK_BYTES };
    const { payload } = await this.#repeat(fields);
    return frameOf({}, payload).payload.readUInt16LE(0);
  }

  /** Whether a SYNC says that an acknowledged write is on disk. */
  async vouchedFor(written: OpVersion): Promise<boolean> {
    return survived(written, lineageOf(headerOf(await this.#repeat({ type: FrameType.SYNC }))));
  }

  /** Repeats until it is answered, over crashes and fail-overs. */
  async #repeat(fields: FrameFields & { type: FrameType }, payload?: Buffer): Promise<FrameReply> {
    for (;;) {
      try {
        return (await this.#call(fields, payload)).reply;
      } catch {
        await this.#wait(SYNC_RETRY_MS);
      }
    }
  }

  /** Reads a whole chunk. @throws Error from the checker */
  async read(ino: number, chunk: number): Promise<void> {
    const { clock } = this.#sim;
    const calledAt = clock.now();
    const truncateSeq = this.#files.truncateSeqs.get(ino) ?? 0;
    const fields = { type: FrameType.READ, ino, chunk, offset: 0, length: CHUNK_BYTES, truncateSeq };
    const { payload } = await this.#callTruncating(fields, undefined);
    const data = Buffer.alloc(CHUNK_BYTES);
    frameOf({}, payload).payload.copy(data);
    this.#cells(ino, chunk, 0, CELLS).forEach((cell, i) => {
      this.#checker.read(cell, data.readUInt16LE(i * CELL_BYTES), calledAt, clock.now());
    });
  }

  /** Repeats until it is done, as the metaserver does. */
  async #cut(ino: number, kind: 'truncate' | 'delete'): Promise<void> {
    const { clock, prng } = this.#sim;
    if (this.#files.busy.has(ino)) return;
    this.#files.busy.add(ino);
    const fromCell = kind === 'delete' ? 0 : prng.int(CELLS * CHUNKS);
    const cells: string[] = [];
    for (let i = fromCell; i < CELLS * CHUNKS; i++)
      cells.push(`${ino}/${Math.floor(i / CELLS)}/${i % CELLS}`);
    const acked = this.#checker.write(cells, 0, clock.now());
    const seq = this.#files.nextTruncate++;
    const purge = {
      pg: 0,
      ino,
      truncateSeq: kind === 'truncate' ? seq : 0,
      truncateFrom: fromCell * CELL_BYTES,
      chunkSize: CHUNK_BYTES,
    };
    let done = false;
    const again = (): void => {
      if (done) return;
      const primary = this.#sim.authority.primary;
      const host = primary ? this.#sim.server(primary).host : undefined;
      host?.purge(purge, () => {
        if (done) return;
        done = true;
        acked(clock.now());
        // A power cut may take back what was not synced: the number is only used when it cannot.
        if (kind === 'truncate') this.#files.doneSeqs.set(ino, seq);
        if (kind === 'truncate' && !this.#powerCuts) this.#files.truncateSeqs.set(ino, seq);
        if (kind === 'delete') {
          this.#files.doneSeqs.delete(ino);
          this.#files.truncateSeqs.delete(ino);
        }
        this.#files.busy.delete(ino);
      });
      clock.after(200, again);
    };
    again();
  }

  async #callTruncating(
    fields: FrameFields & { type: FrameType },
    payload: Buffer | undefined,
  ): Promise<FrameReply> {
    const ino = fields.ino as number;
    const { error, reply } = await this.#call(fields, payload).catch((failure: unknown) => {
      if (toHoldfastError(failure).errorName === 'CUT') this.#learnCut(ino);
      throw failure;
    });
    if (!(error instanceof FrameError)) return reply;
    if (this.#powerCuts) this.#files.truncateSeqs.delete(ino);
    // A delete, done or on its way, forgets the number.
    if (this.#files.truncateSeqs.get(ino) !== fields.truncateSeq || this.#files.busy.has(ino)) throw error;
    throw new Error(`truncate ${error.fields.truncateSeq} here, but ${fields.truncateSeq} is done`);
  }

  /** A power cut has left the truncate in place after all. */
  #learnCut(ino: number): void {
    const seq = this.#files.doneSeqs.get(ino);
    if (seq !== undefined) this.#files.truncateSeqs.set(ino, seq);
  }

  /** @throws HoldfastError: the outcome is unknown, but for NEED_TRUNCATE, which is returned */
  #call(fields: FrameFields & { type: FrameType }, payload: Buffer | undefined): Promise<Outcome> {
    const { clock } = this.#sim;
    const pg = this.#map.pgs[0]!;
    const primary = pg.replicas.find(({ state }) => state === ReplicaState.REPLICA_IN_SYNC);
    if (!primary) return Promise.reject(new HoldfastError('UNAVAILABLE', 'the group has no primary'));
    const server = this.#sim.server(primary.server);
    return new Promise((resolve, reject) => {
      const timer = clock.after(ANSWER_TIMEOUT_MS, () => reject(new HoldfastError('DEADLINE_EXCEEDED')));
      const answer: ClientCall['answer'] = (error, reply) => {
        clock.after(this.#sim.delay(this.#sim.networkMs), () => {
          timer.cancel();
          if (error && error.errorName !== 'NEED_TRUNCATE') reject(error);
          else resolve({ error, reply });
        });
      };
      server.at(this.#sim.delay(this.#sim.networkMs), () => {
        const frame = frameOf({ ...fields, pg: 0, epoch: pg.epoch, deadlineMs: 2000 }, payload);
        try {
          server.host?.request(0, clientCall(frame, clock.now(), answer));
        } catch (error) {
          answer(toHoldfastError(error), {});
        }
      });
    });
  }
}

const headerOf = (reply: FrameReply): FrameHeader => frameOf({ ...reply.fields }, undefined).header;

function versionOf(reply: FrameReply): OpVersion {
  const { versionEpoch, versionSeq } = headerOf(reply);
  return { epoch: versionEpoch, seq: versionSeq };
}
