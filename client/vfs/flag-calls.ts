import { HoldfastError } from '../../proto/errors.js';
import type { Attr } from '../../proto/gen/meta.js';
import { FLAG_IMMUTABLE, FLAG_NOATIME, KNOWN_FLAGS } from '../../proto/inode-flags.js';
import { type Answer, andThen } from '../answer.js';
import type { Caller } from '../fuse/binding.js';
import { changedAttr } from '../leases/local-attr.js';
import { attrOf } from '../meta/api.js';
import { interruptible } from '../wait.js';
import { staleIfGone, type VfsContext } from './context.js';

/** Flags of inodes, as chattr(1) sets and lsattr(1) shows them. What they forbid, the servers say; writes are refused here. */
export class FlagCalls {
  readonly #context: VfsContext;

  constructor(context: VfsContext) {
    this.#context = context;
  }

  get(caller: Caller, ino: number): Answer<number> {
    const known = this.#context.removedForGood(ino) ?? this.#context.inodes.fresh(ino)?.attr;
    const attr =
      known ??
      this.#context.attr(ino, caller.signal).catch((error: unknown) => this.#context.forgotten(ino, error));
    return andThen(attr, ({ flags = 0 }) => flags & KNOWN_FLAGS);
  }

  /** What was written before belongs to the file: also what the kernel has of it in pages that programs have mapped. */
  async set(caller: Caller, ino: number, flags: number): Promise<void> {
    const { files, notifier } = this.#context;
    if ((flags & FLAG_IMMUTABLE) !== 0) await this.#writeBack(caller, ino);
    if ((flags & FLAG_NOATIME) !== 0) await files.atimes?.flush();
    const attr = await this.#change(caller, ino, flags);
    files.get(ino)?.applyAttr(attr, true);
    // It has a new ctime, of which the kernel knows nothing.
    if (notifier?.expireAttr) notifier.expireAttr(ino);
    else await notifier?.invalidateInode(ino, -1, 0);
  }

  async #change(caller: Caller, ino: number, flags: number): Promise<Attr> {
    const { inodes } = this.#context;
    const removed = this.#context.removedForGood(ino);
    if (removed) return this.#ofRemoved(removed, flags);
    const op = { $case: 'setFlags' as const, value: { ino, flags, uid: caller.uid } };
    try {
      return await this.#context.changing(ino, async () => {
        const reply = await staleIfGone(this.#context.mutate([ino], op, caller.signal));
        const attr = attrOf(reply.result);
        inodes.learn(attr, inodes.stamp(reply.asOf), true);
        return attr;
      });
    } catch (error) {
      return this.#ofRemoved(this.#context.forgotten(ino, error), flags);
    }
  }

  /** The servers have forgotten it; the kernel has checked who may. @throws HoldfastError EOPNOTSUPP */
  #ofRemoved(directory: Attr, flags: number): Attr {
    if ((flags & ~KNOWN_FLAGS) !== 0) throw new HoldfastError('EOPNOTSUPP');
    const ctime = this.#context.clock.wall();
    const attr = { ...changedAttr(directory, { ctime }, ctime), flags };
    this.#context.inodes.setLocal(attr);
    return attr;
  }

  async #writeBack({ signal }: Caller, ino: number): Promise<void> {
    const { files, lane, notifier } = this.#context;
    if (notifier && files.hasWriter(ino)) await interruptible(notifier.invalidateInode(ino, 0, 0), signal);
    const file = files.get(ino);
    if (file && !file.clean) await interruptible(lane.urgently(file.flush()), signal);
  }
}
