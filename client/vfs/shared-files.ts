import { LeaseMode } from '../../proto/gen/meta.js';
import type { FileData } from '../data/file-data.js';
import { type FileReader, READ_ATTEMPTS_MAX } from '../data/reader.js';
import type { AttrReply } from '../fuse/binding.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { VfsContext } from './context.js';

/**
 * Files that nobody leases, for one mount writes what another has open. What is seen of them here is what every mount would
 * see at this moment: a change that a call here is still making shows to nobody before it shows to all.
 */
export class SharedFiles {
  readonly #context: VfsContext;
  readonly #reader: FileReader;

  constructor(context: VfsContext, reader: FileReader) {
    this.#context = context;
    this.#reader = reader;
  }

  /** Nobody leases it here, or others may look at it while it is written here. */
  isShared(ino: number): boolean {
    const mode = this.#context.mode(ino);
    if (mode === LeaseMode.LEASE_SHARED) return this.#context.files.get(ino)?.clean === false;
    return mode === LeaseMode.LEASE_NONE;
  }

  /**
   * Whether size and contents must be asked for: nobody leases the file here, or what came with the lease has not arrived.
   * A lease counts from the moment an answer is read, its attributes when whoever asked goes on; and a listing brings
   * them without a word to the open file, which learns of them here.
   */
  mustAsk(file: FileData): boolean {
    const known = this.#context.inodes.fresh(file.ino);
    if (known) file.applyAttr(known.attr, false);
    return known === undefined || this.isShared(file.ino);
  }

  /** What calls that have returned wrote under a lease that is gone is with the servers when this resolves. */
  async settle(file: FileData, signal: Interrupt): Promise<void> {
    if (!file.clean) await interruptible(this.#context.lane.urgently(file.flush()), signal);
  }

  /** Attributes as they are now; those of a shared file without what is being written to it here. */
  async attr(ino: number, signal: Interrupt): Promise<AttrReply> {
    const { files } = this.#context;
    const file = files.get(ino);
    if (file && this.isShared(ino)) await this.settle(file, signal);
    const attr = await this.#context.attr(ino, signal);
    return this.#context.attrReply(attr, this.isShared(ino) ? files.told(attr) : files.view(attr));
  }

  /** The size is asked for before the contents: bytes that were cut off since must not read as a hole. */
  async read(file: FileData, offset: number, size: number, signal: Interrupt): Promise<Buffer[]> {
    this.#context.unleasedPages.filled(file.ino, { from: offset, to: offset + size });
    await this.settle(file, signal);
    const op = { $case: 'getAttr' as const, value: { ino: file.ino } };
    for (let attempt = 1; ; attempt++) {
      const attr = await this.#context.readAttr(op, signal);
      file.applyAttr(attr, false);
      const end = Math.min(offset + size, attr.size);
      if (end <= offset) return [];
      const { parts, truncateSeq } = await this.#reader.readCommitted(attr, offset, end, signal);
      if (truncateSeq === attr.truncateSeq || attempt >= READ_ATTEMPTS_MAX) return parts;
    }
  }
}
