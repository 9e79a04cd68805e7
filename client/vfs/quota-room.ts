import { HoldfastError } from '../../proto/errors.js';
import type { Attr, QuotaAmount, SetAttr } from '../../proto/gen/meta.js';
import { reservesBehindEnd } from '../../proto/inode-flags.js';
import { S_ISGID } from '../../proto/types.js';
import type { ChunkApi } from '../data/api.js';
import type { FileData } from '../data/file-data.js';
import type { Caller } from '../fuse/binding.js';
import { type Amount, amountsOf, type Hold, type Owner } from '../quota/quota-book.js';
import { type Interrupt, interruptible } from '../wait.js';
import type { VfsContext } from './context.js';

/** Near a limit a write goes in pieces of these sizes, the smaller ones when the larger have no room. */
const PIECE_BYTES = [64 * 1024, 4 * 1024] as const;

export const ONE_INODE: Amount = { bytes: 0, inodes: 1 };

type Wanted = () => Promise<{ owner: Owner; amount: Amount }>;

export function isQuotaExceeded(error: unknown): boolean {
  return error instanceof HoldfastError && error.errorName === 'EDQUOT';
}

/**
 * Makes a request; when a limit is in its way, again with room set aside for it: what other mounts have reserved and do
 * not need comes back for that.
 * @param spent for MetaApi.mutate
 */
export async function withRoom<T>(
  context: VfsContext,
  wanted: Wanted,
  signal: Interrupt | undefined,
  run: (spent?: QuotaAmount[]) => Promise<T>,
): Promise<T> {
  const { quotas } = context;
  try {
    return await run();
  } catch (error) {
    if (!isQuotaExceeded(error) || !quotas.book.active) throw error;
  }
  const { owner, amount } = await wanted();
  const hold = await quotas.acquire(owner, amount, signal);
  try {
    return await run(amountsOf(hold));
  } finally {
    quotas.book.settled(hold);
  }
}

/** Who a new inode in a directory counts for. */
export function ownerIn({ project, mode, gid }: Attr, caller: Caller): Owner {
  return { project, uid: caller.uid, gid: mode & S_ISGID ? gid : caller.gid };
}

/** What a new inode in a directory counts. */
export function newInodeIn(context: VfsContext, parent: number, caller: Caller): Wanted {
  return async () => ({
    owner: ownerIn(await context.attr(parent, caller.signal), caller),
    amount: ONE_INODE,
  });
}

/** VfsContext.setAttr(); a new owner must have room for all that the inode counts. */
export function setAttrWithin(
  context: VfsContext,
  ino: number,
  change: Partial<SetAttr>,
  signal: Interrupt,
): Promise<Attr> {
  const wanted: Wanted = async () => {
    const { uid, gid, project, allocated } = await context.attr(ino, signal);
    const owner = { project, uid: change.uid ?? uid, gid: change.gid ?? gid };
    return { owner, amount: { bytes: allocated, inodes: 1 } };
  };
  return withRoom(context, wanted, signal, (spent) => context.setAttr(ino, change, signal, spent));
}

/** Where the bytes of a write were put, and how many. */
export interface Written {
  at: number;
  length: number;
}

interface WriteOptions {
  /** Less than all is of no use. */
  whole: boolean;
  signal: Interrupt;
  /** As for FileData.write(). */
  mayPut?: (() => boolean) | undefined;
}

/**
 * write(2) to a file that may count towards a limit. What there is no room for is not taken: the end of a long write, as
 * on a local file system, or all of it.
 * @returns undefined: nowhere, for the end is not known
 * @throws HoldfastError EDQUOT; as FileData.write()
 */
export async function writeWithinQuota(
  context: VfsContext,
  chunks: ChunkApi,
  file: FileData,
  offset: number | 'end',
  data: Buffer,
  options: WriteOptions,
): Promise<Written | undefined> {
  const hold = await holdFor(context, chunks, file, offset, data.length, options.signal);
  if (hold) return writeHeld(context, file, offset, data, hold, options);
  let written: Written | undefined;
  for (let size = 0; size < PIECE_BYTES.length; ) {
    const done = written?.length ?? 0;
    if (done === data.length) break;
    const piece = data.subarray(done, done + (PIECE_BYTES[size] as number));
    const place = offset === 'end' ? offset : offset + done;
    const room = await roomFor(context, chunks, file, place, piece.length, options.signal);
    if (!room) {
      size++;
      continue;
    }
    const put = await writeHeld(context, file, place, piece, room, options);
    if (!put) return written;
    written = { at: written?.at ?? put.at, length: done + put.length };
  }
  if (!written || (options.whole && written.length < data.length)) throw new HoldfastError('EDQUOT');
  return written;
}

/** For all of a write; undefined: there is not enough. */
async function holdFor(
  context: VfsContext,
  chunks: ChunkApi,
  file: FileData,
  offset: number | 'end',
  length: number,
  signal: Interrupt,
): Promise<Hold | undefined> {
  try {
    return await context.quotas.acquire(file.view(), { bytes: length, inodes: 0 }, signal);
  } catch (error) {
    if (!isQuotaExceeded(error)) throw error;
  }
  return roomFor(context, chunks, file, offset, length, signal);
}

/**
 * Room for bytes that space is to be kept for, as for a write of them.
 * @throws HoldfastError EDQUOT; EINTR when `signal` aborts
 */
export async function holdToReserve(
  context: VfsContext,
  chunks: ChunkApi,
  file: FileData,
  start: number,
  length: number,
  signal: Interrupt,
): Promise<Hold> {
  const { quotas } = context;
  const owner = file.view();
  const most = await quotas.acquire(owner, { bytes: length, inodes: 0 }, signal).catch((error: unknown) => {
    if (!isQuotaExceeded(error)) throw error;
  });
  if (most) return most;
  // No more than the file has can be there already: before all its chunks are asked, this is.
  const least = Math.max(0, length - owner.allocated);
  quotas.book.release(await quotas.acquire(owner, { bytes: least, inodes: 0 }, signal));
  const hold = await roomFor(context, chunks, file, start, length, signal);
  if (!hold) throw new HoldfastError('EDQUOT');
  return hold;
}

async function writeHeld(
  { quotas }: VfsContext,
  file: FileData,
  offset: number | 'end',
  data: Buffer,
  hold: Hold,
  { signal, mayPut }: WriteOptions,
): Promise<Written | undefined> {
  let at: number | undefined;
  try {
    at = await file.write(offset, data, signal, mayPut, hold);
  } finally {
    if (at === undefined) quotas.book.release(hold);
  }
  return at === undefined ? undefined : { at, length: data.length };
}

/** What is written over bytes that are stored already, or that space is kept for, takes no room. */
async function roomFor(
  { quotas, lane }: VfsContext,
  chunks: ChunkApi,
  file: FileData,
  offset: number | 'end',
  length: number,
  signal: Interrupt,
): Promise<Hold | undefined> {
  const start = offset === 'end' ? file.size : offset;
  try {
    const room = quotas.take(file.view(), { bytes: length, inodes: 0 });
    if (room) return room;
    if (!file.clean) await interruptible(lane.urgently(file.flush()), signal);
    const bytes = length - (await storedBytes(chunks, file, start, start + length, signal));
    return await quotas.acquire(file.view(), { bytes, inodes: 0 }, signal);
  } catch (error) {
    if (isQuotaExceeded(error)) return undefined;
    throw error;
  }
}

/** How many bytes of [start, end) the servers store, or keep space for. */
async function storedBytes(
  chunks: ChunkApi,
  file: FileData,
  start: number,
  end: number,
  signal: Interrupt,
): Promise<number> {
  const { chunkSize } = file;
  let stored = 0;
  const last = reservesBehindEnd(file) ? end : Math.min(end, file.size);
  for (let at = start; at < last; ) {
    const chunk = Math.floor(at / chunkSize);
    const base = chunk * chunkSize;
    const until = Math.min(end, base + chunkSize);
    for (const range of await chunks.ranges(file, chunk, signal, 'space')) {
      const from = Math.max(at, base + range.start);
      const to = Math.min(until, base + range.end);
      stored += Math.max(0, to - from);
    }
    at = until;
  }
  return stored;
}
