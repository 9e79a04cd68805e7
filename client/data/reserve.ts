import { HoldfastError } from '../../proto/errors.js';
import { type Hold, NO_HOLD } from '../quota/quota-book.js';
import type { Interrupt } from '../wait.js';
import type { ChunkApi } from './api.js';
import type { FileData } from './file-data.js';

/** Chunks of one file that space is reserved in at a time. */
export const RESERVES_AT_ONCE = 16;

/**
 * Has the servers keep space for what of [start, end) takes none; no byte changes, nor does the size. Committed when it
 * resolves, also when it fails: what was reserved until then stays so, as on ext4.
 * @param isWanted whether others wait for the file: no further chunks are begun then
 * @param hold what was taken of quotas for it; it is the file's from here on
 * @returns up to where space is kept now
 * @throws HoldfastError ENOSPC, EIO; EINTR when `signal` aborts, behind the chunks that were begun
 */
export async function reserveRange(
  file: FileData,
  chunks: Pick<ChunkApi, 'reserve' | 'pgOf'>,
  start: number,
  end: number,
  { signal, isWanted, hold = NO_HOLD }: { signal: Interrupt; isWanted(): boolean; hold?: Hold | undefined },
): Promise<number> {
  const { ino, chunkSize } = file;
  let bytes = 0;
  let at = start;
  let failure: unknown;
  const lane = async (): Promise<void> => {
    while (at < end && failure === undefined) {
      if (signal?.aborted) throw new HoldfastError('EINTR');
      if (at > start && isWanted()) return;
      const from = at;
      const chunk = Math.floor(from / chunkSize);
      const base = chunk * chunkSize;
      const to = Math.min(end, base + chunkSize);
      at = to;
      const reserved = await file.duringSend(to, chunks.reserve(file, chunk, from - base, to - from));
      file.reserved(await chunks.pgOf(ino, chunk), reserved);
      bytes += reserved.allocated;
    }
  };
  const lanes = Array.from({ length: RESERVES_AT_ONCE }, () =>
    lane().catch((error: unknown) => {
      failure ??= error;
    }),
  );
  await Promise.all(lanes);
  file.holds.add(hold, bytes);
  file.touched();
  await file.flush();
  if (failure !== undefined) throw failure;
  return at;
}
