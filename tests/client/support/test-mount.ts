import { dataLimits } from '../../../client/data/limits.js';
import type { Caller, CreateReply, OpenReply } from '../../../client/fuse/binding.js';
import { HoldfastFs } from '../../../client/vfs/vfs.js';
import { silentLogger } from '../../../common/logger.js';
import { ManualClock } from './manual-clock.js';
import { MemoryChunks } from './memory-chunks.js';
import { MemoryMeta } from './memory-meta.js';
import { type Promised, promised } from './promised.js';

const O_RDWR = 2;

export function caller(who: Partial<Caller> = {}): Caller {
  return { uid: 0, gid: 0, pid: 1, signal: new AbortController().signal, ...who };
}

/** A whole file system over servers in memory, called as a binding calls it. */
export class TestMount {
  readonly meta: MemoryMeta;
  readonly chunks: MemoryChunks;
  readonly clock: ManualClock;
  readonly fs: Promised<HoldfastFs>;
  /** The same, as a binding has it: an answer that is there at once is no promise. */
  readonly answering: HoldfastFs;

  constructor(
    options: {
      meta?: MemoryMeta;
      chunks?: MemoryChunks;
      clock?: ManualClock;
      readOnly?: boolean;
      directoryEntriesMax?: number;
    } = {},
  ) {
    this.meta = options.meta ?? new MemoryMeta();
    this.chunks = options.chunks ?? new MemoryChunks();
    this.clock = options.clock ?? new ManualClock();
    const { meta, chunks, clock } = this;
    const fs = new HoldfastFs({
      meta,
      chunks,
      clock,
      log: silentLogger,
      limits: dataLimits(),
      readOnly: options.readOnly ?? false,
      directoryEntriesMax: options.directoryEntriesMax,
      noAtime: true,
      destroyStallMs: 5_000,
    });
    this.answering = fs;
    this.fs = promised(fs);
  }

  /** Another mount of the same cluster. */
  second(): TestMount {
    const { chunks, clock } = this;
    return new TestMount({ meta: new MemoryMeta(this.meta.namespace), chunks, clock });
  }

  async create(name: string, mode = 0o644, flags = O_RDWR): Promise<CreateReply & { ino: number }> {
    const reply = await this.fs.create(caller(), 1, Buffer.from(name), mode, flags, 0);
    return { ...reply, ino: reply.entry.attr.ino };
  }

  open(ino: number, flags: number): Promise<OpenReply> {
    return this.fs.open(caller(), ino, flags);
  }

  write(handle: number, offset: number, data: Buffer, flags = 0, killPriv = false): Promise<number> {
    return this.fs.write(caller(), 0, { handle, offset, data, fromCache: false, killPriv, flags });
  }

  async read(handle: number, offset: number, size: number): Promise<Buffer> {
    return Buffer.concat(await this.fs.read(caller(), 0, handle, offset, size));
  }

  /** close(2) of the only descriptor. */
  async close(handle: number): Promise<void> {
    try {
      await this.fs.flush(caller(), 0, handle, 0n);
    } finally {
      await this.fs.release(0, handle, 0);
    }
  }

  async readFile(name: string): Promise<Buffer> {
    const { attr } = await this.fs.lookup(caller(), 1, Buffer.from(name));
    const { handle } = await this.open(attr.ino, 0);
    const data = await this.read(handle, 0, attr.size + 1);
    await this.close(handle);
    return data;
  }
}
