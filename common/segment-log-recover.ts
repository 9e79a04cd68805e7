import path from 'node:path';
import { crc32c } from './crc32c.js';
import type { Disk, DiskFile } from './disk.js';
import {
  comparePositions,
  decodeRecordHeader,
  decodeSegmentHeader,
  LogCorruptError,
  LogFormatError,
  type LogIdentity,
  type Position,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  type RecordHeader,
  recordSeed,
  SEGMENT_HEADER_BYTES,
  segmentName,
  segmentOfName,
} from './segment-log-format.js';

/** Receives records in order; `payload` is a view that is overwritten after the call. */
export type OnRecord = (position: Position, type: number, payload: Buffer) => void;

const READ_WINDOW_BYTES = 4 * 1024 * 1024;

export interface RecoverOptions {
  disk: Disk;
  dir: string;
  kind: string;
  formatVersion: number;
  /** When given, a log with another uuid is refused. */
  uuid?: string;
  from?: Position;
  maxRecordBytes: number;
  onRecord: OnRecord;
}

export interface Recovered {
  /** Undefined when the directory holds no log. */
  uuid?: string;
  /** Ascending; gaps are segments that were unlinked. */
  segments: number[];
  /** Where the next record goes. */
  end: Position;
  /** Length of the segment before `end.segment`; 0: unknown or none. */
  previousEnd: number;
  /** Bytes of unsynced records that a crash had torn and that were cut off, without zeros at their end. */
  tornBytes: number;
}

/**
 * Replays a log from `from` on and cuts off what a crash tore.
 *
 * A bad record is a torn tail exactly when no record behind it says that its place was durable: data that was never
 * synced may be missing in any pattern, and up to two segments may be unsynced at once. Everything else is corruption.
 *
 * @throws LogCorruptError naming file and offset; LogFormatError for another kind, version or uuid
 */
export async function recoverLog(options: RecoverOptions): Promise<Recovered> {
  const { disk, dir } = options;
  await disk.mkdir(dir);
  const segments = (await disk.list(dir))
    .map(segmentOfName)
    .filter((segment) => segment !== undefined)
    .sort((a, b) => a - b);
  const from = options.from ?? { segment: segments[0] ?? 1, offset: 0 };
  const last = segments.at(-1);
  // A log that ended exactly where a segment was about to start has no file for that one yet.
  if (from.segment === (last ?? 0) + 1 && from.offset === 0) return emptyTail(options, segments, from);
  if (last === undefined || !segments.includes(from.segment)) throw missing(dir, from.segment);
  const scan = new Scan(options);
  const replayed = segments.filter((segment) => segment >= from.segment);
  let previous: Position | undefined;
  for (const segment of replayed) {
    if (options.from && previous && segment !== previous.segment + 1)
      throw missing(dir, previous.segment + 1);
    const start =
      segment === from.segment ? Math.max(from.offset, SEGMENT_HEADER_BYTES) : SEGMENT_HEADER_BYTES;
    const { bad, offset } = await scan.replay(segment, start, previous);
    const zeros = bad !== undefined && bad.segment === segment && (await scan.endsThere(bad, segments));
    if (bad && !zeros) return cutTail(options, scan, segments, bad, previous);
    if (bad) await cutFile(disk, path.join(dir, segmentName(segment)), bad.offset);
    const end = bad ?? { segment, offset };
    if (segment === last) {
      await syncTail(options, replayed);
      return { uuid: scan.uuid, segments, end, previousEnd: previous?.offset ?? 0, tornBytes: 0 };
    }
    previous = end;
  }
  throw missing(dir, from.segment);
}

async function emptyTail(options: RecoverOptions, segments: number[], end: Position): Promise<Recovered> {
  const last = segments.at(-1);
  if (last === undefined) return { segments, end, previousEnd: 0, tornBytes: 0 };
  const scan = new Scan(options);
  const size = await sizeOf(options.disk, path.join(options.dir, segmentName(last)));
  const { bad } = await scan.replay(last, size, undefined);
  if (bad)
    throw new LogCorruptError(path.join(options.dir, segmentName(last)), bad.offset, 'bad segment header');
  return { uuid: scan.uuid, segments, end, previousEnd: size, tornBytes: 0 };
}

function missing(dir: string, segment: number): LogCorruptError {
  return new LogCorruptError(path.join(dir, segmentName(segment)), 0, 'segment is missing');
}

/** The torn tail from `bad` on goes, or corruption is reported. */
async function cutTail(
  options: RecoverOptions,
  scan: Scan,
  segments: number[],
  bad: Position,
  previous: Position | undefined,
): Promise<Recovered> {
  const { disk, dir } = options;
  const previousEnd = previous && previous.segment < bad.segment ? previous.offset : 0;
  const behind = segments.filter((segment) => segment >= bad.segment);
  const claim = await scan.durableClaimBehind(bad, behind);
  const file = path.join(dir, segmentName(bad.segment));
  if (options.from && comparePositions(bad, options.from) < 0) {
    throw new LogCorruptError(file, bad.offset, 'bad segment header');
  }
  if (claim) {
    throw new LogCorruptError(file, bad.offset, `bad record (${claim} shows that it was on disk once)`);
  }
  let tornBytes = 0;
  for (const segment of behind.slice(1).reverse()) {
    const torn = path.join(dir, segmentName(segment));
    tornBytes += await writtenBehind(disk, torn, 0);
    await disk.unlink(torn);
    await disk.syncDir(dir);
  }
  tornBytes += await writtenBehind(disk, file, bad.offset);
  const kept = segments.filter((segment) => segment < bad.segment);
  if (bad.offset === 0) {
    await disk.unlink(file);
    await disk.syncDir(dir);
    await syncTail(options, kept);
    return { uuid: scan.uuid, segments: kept, end: bad, previousEnd, tornBytes };
  }
  await cutFile(disk, file, bad.offset);
  kept.push(bad.segment);
  await syncTail(options, kept);
  return { uuid: scan.uuid, segments: kept, end: bad, previousEnd, tornBytes };
}

async function cutFile(disk: Disk, file: string, length: number): Promise<void> {
  const handle = await disk.open(file, 'write');
  try {
    await handle.truncate(length);
  } finally {
    await handle.close();
  }
}

const MAX_UNSYNCED_TAIL_SEGMENTS = 3;

/** What was replayed may be acted upon, so it must not vanish with a later power cut. */
async function syncTail(options: RecoverOptions, segments: number[]): Promise<void> {
  for (const segment of segments.slice(-MAX_UNSYNCED_TAIL_SEGMENTS)) {
    const handle = await options.disk.open(path.join(options.dir, segmentName(segment)), 'write');
    try {
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }
  await options.disk.syncDir(options.dir);
}

async function sizeOf(disk: Disk, file: string): Promise<number> {
  const handle = await disk.open(file, 'read');
  try {
    return await handle.size();
  } finally {
    await handle.close();
  }
}

/** Bytes behind `offset` up to the last one that is not zero: zeros are written ahead of records. */
async function writtenBehind(disk: Disk, file: string, offset: number): Promise<number> {
  const handle = await disk.open(file, 'read');
  try {
    const bytes = Buffer.alloc(Math.max(0, (await handle.size()) - offset));
    let written = await handle.read(bytes, offset);
    while (written > 0 && bytes[written - 1] === 0) written--;
    return written;
  } finally {
    await handle.close();
  }
}

interface ScanEnd {
  offset: number;
  bad?: Position;
}

/** Reads segment files from start to end. */
class Scan {
  uuid?: string;
  private seed = 0;

  constructor(private readonly options: RecoverOptions) {}

  /**
   * Replays one segment from `start` to its end, or to its first bad place. A segment before (`previous`: where it
   * ended) that is shorter than this one's header says has lost its tail: then the bad place is there.
   */
  async replay(segment: number, start: number, previous: Position | undefined): Promise<ScanEnd> {
    const file = path.join(this.options.dir, segmentName(segment));
    const handle = await this.options.disk.open(file, 'read');
    try {
      const previousEnd = await this.readSegmentHeader(handle, file, segment);
      if (previousEnd === undefined) return { offset: 0, bad: { segment, offset: 0 } };
      if (
        previous &&
        previous.segment === segment - 1 &&
        previousEnd !== 0 &&
        previousEnd !== previous.offset
      ) {
        return { offset: 0, bad: previous };
      }
      const end = await this.replayRecords(handle, file, segment, start);
      return end.bad ? { offset: 0, bad: { segment, offset: end.offset } } : { offset: end.offset };
    } finally {
      await handle.close();
    }
  }

  /**
   * Whether a segment's records end at `place`, by what the next segment's header says: what lies behind is zeros that were
   * written ahead, and that a crash kept from being cut off.
   */
  async endsThere(place: Position, segments: readonly number[]): Promise<boolean> {
    const next = place.segment + 1;
    if (place.offset === 0 || !segments.includes(next)) return false;
    const file = path.join(this.options.dir, segmentName(next));
    const handle = await this.options.disk.open(file, 'read');
    try {
      return (await this.readSegmentHeader(handle, file, next)) === place.offset;
    } finally {
      await handle.close();
    }
  }

  /** The previous segment's end as the header has it; undefined when there is no sound header. */
  private async readSegmentHeader(
    handle: DiskFile,
    file: string,
    segment: number,
  ): Promise<number | undefined> {
    const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
    const got = await handle.read(bytes, 0);
    const header = decodeSegmentHeader(file, bytes.subarray(0, got));
    if (!header) return undefined;
    this.checkIdentity(file, header);
    if (header.segment !== segment) {
      throw new LogCorruptError(file, 0, `header of segment ${header.segment}`);
    }
    this.uuid = header.uuid;
    this.seed = recordSeed(header.uuid);
    return header.previousEnd;
  }

  private checkIdentity(file: string, header: LogIdentity): void {
    const { kind, formatVersion } = this.options;
    const uuid = this.options.uuid ?? this.uuid ?? header.uuid;
    if (header.kind !== kind) throw new LogFormatError(`${file}: a log of kind ${header.kind}, not ${kind}`);
    if (header.formatVersion !== formatVersion) {
      throw new LogFormatError(
        `${file}: ${kind} format version ${header.formatVersion}; this program knows ${formatVersion}`,
      );
    }
    if (header.uuid !== uuid) throw new LogFormatError(`${file}: belongs to ${header.uuid}, not to ${uuid}`);
  }

  private async replayRecords(
    handle: DiskFile,
    file: string,
    segment: number,
    start: number,
  ): Promise<{ offset: number; bad: boolean }> {
    const size = await handle.size();
    if (start > size)
      throw new LogCorruptError(file, size, `file ends before ${start}, where it is known to go on,`);
    let window: Buffer = Buffer.allocUnsafe(Math.min(READ_WINDOW_BYTES, size - start));
    let offset = start;
    let base = start;
    let filled = 0;
    // Makes [offset, offset + length) readable in the window; false at the end of the file.
    const ensure = async (length: number): Promise<boolean> => {
      if (offset + length <= base + filled) return true;
      if (offset + length > size) return false;
      if (length > window.length) window = Buffer.allocUnsafe(length);
      base = offset;
      filled = await handle.read(window.subarray(0, Math.min(window.length, size - base)), base);
      return length <= filled;
    };
    while (offset < size) {
      if (!(await ensure(RECORD_HEADER_BYTES))) return { offset, bad: true };
      const header = decodeRecordHeader(this.seed, { segment, offset }, window, offset - base);
      if (!header || header.length > this.options.maxRecordBytes) return { offset, bad: true };
      const total = RECORD_HEADER_BYTES + header.length;
      if (!(await ensure(total))) return { offset, bad: true };
      const payload = window.subarray(offset - base + RECORD_HEADER_BYTES, offset - base + total);
      if (crc32c(payload) !== header.payloadCrc) return { offset, bad: true };
      this.options.onRecord({ segment, offset }, header.type, payload);
      offset += total;
    }
    return { offset, bad: false };
  }

  /** The place of a sound record header behind `bad` that says `bad` was durable; undefined when there is none. */
  async durableClaimBehind(bad: Position, segments: number[]): Promise<string | undefined> {
    const seed = this.uuid ? this.seed : this.options.uuid ? recordSeed(this.options.uuid) : undefined;
    if (seed === undefined) return undefined;
    for (const segment of segments) {
      const file = path.join(this.options.dir, segmentName(segment));
      const handle = await this.options.disk.open(file, 'read');
      try {
        const bytes = Buffer.alloc(await handle.size());
        await handle.read(bytes, 0);
        let at = bytes.indexOf(RECORD_MAGIC, segment === bad.segment ? bad.offset : SEGMENT_HEADER_BYTES);
        for (; at >= 0; at = bytes.indexOf(RECORD_MAGIC, at + 1)) {
          const header: RecordHeader | undefined = decodeRecordHeader(
            seed,
            { segment, offset: at },
            bytes,
            at,
          );
          if (header && comparePositions(header.durable, bad) > 0) return `the record at ${segment}:${at}`;
        }
      } finally {
        await handle.close();
      }
    }
    return undefined;
  }
}
