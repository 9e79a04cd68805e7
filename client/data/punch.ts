import type { ChunkApi } from './api.js';
import type { FileData } from './file-data.js';

/** Makes [start, end) of a file read as zeros, and gives the space back; the size stays. Committed when it resolves. */
export async function punchRange(
  file: FileData,
  chunks: Pick<ChunkApi, 'nextChunk' | 'punch' | 'pgOf'>,
  start: number,
  end: number,
): Promise<void> {
  const { ino, chunkSize } = file;
  await file.flush();
  for (let at = start; at < end; ) {
    const [first, last] = [Math.floor(at / chunkSize), Math.floor((end - 1) / chunkSize)];
    const chunk = await chunks.nextChunk(file, first, last, undefined, 'space');
    if (chunk === undefined) break;
    const base = chunk * chunkSize;
    const from = Math.max(at, base);
    const to = Math.min(end, base + chunkSize);
    const punched = await chunks.punch(file, chunk, from - base, to - from);
    file.landed(await chunks.pgOf(ino, chunk), punched, from, to);
    at = to;
  }
  file.touched();
  await file.flush();
}
