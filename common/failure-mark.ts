import path from 'node:path';
import { type Disk, diskErrorCode, readWholeFile, replaceFile } from './disk.js';
import type { Position } from './segment-log.js';
import { segmentName, segmentOfName } from './segment-log-format.js';

const MARK_FILE = 'failed.json';

/** Up to where the log was certainly on disk when a write or an fdatasync failed. */
export type FailureMark = Position;

/**
 * Notes that the log has failed. After a failed fdatasync the system may show bytes that are not on disk, and says that a
 * second one succeeded: nothing behind the mark is believed by the next start.
 */
export async function writeFailureMark(disk: Disk, dir: string, durable: FailureMark): Promise<void> {
  await replaceFile(disk, path.join(dir, MARK_FILE), Buffer.from(JSON.stringify(durable)));
}

async function readFailureMark(disk: Disk, dir: string): Promise<FailureMark | undefined> {
  let text: Buffer;
  try {
    text = await readWholeFile(disk, path.join(dir, MARK_FILE));
  } catch (error) {
    if (diskErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const { segment, offset } = JSON.parse(text.toString()) as FailureMark;
  return { segment, offset };
}

/**
 * Cuts off what a former process wrote behind its last fdatasync that succeeded, if it had one that failed.
 * @returns the bytes that went; undefined: there was no failure
 */
export async function cutAtFailure(disk: Disk, dir: string, logDir: string): Promise<number | undefined> {
  const mark = await readFailureMark(disk, dir);
  if (!mark) return undefined;
  let cut = 0;
  const segments = (await disk.list(logDir)).map(segmentOfName).filter((segment) => segment !== undefined);
  // The last first: what is left is a log without gaps at any moment.
  for (const segment of segments.sort((a, b) => b - a)) {
    if (segment < mark.segment) break;
    const keep = segment === mark.segment ? mark.offset : 0;
    cut += await cutSegment(disk, path.join(logDir, segmentName(segment)), keep);
  }
  await disk.syncDir(logDir);
  await disk.unlink(path.join(dir, MARK_FILE));
  await disk.syncDir(dir);
  return cut;
}

async function cutSegment(disk: Disk, file: string, keep: number): Promise<number> {
  const handle = await disk.open(file, 'write');
  let size: number;
  try {
    size = await handle.size();
    if (keep > 0 && size > keep) {
      await handle.truncate(keep);
      await handle.datasync();
    }
  } finally {
    await handle.close();
  }
  if (keep === 0) await disk.unlink(file);
  return Math.max(0, size - keep);
}
