import path from 'node:path';
import type { Disk, DiskFile } from './disk.js';
import { segmentName } from './segment-log-format.js';

interface Entry {
  file: Promise<DiskFile>;
  /** The same once it is there. */
  opened: DiskFile | undefined;
  users: number;
  doomed: boolean;
}

/** Descriptors of segment files, opened on first use; beyond `limit` those unused longest are closed. */
export class SegmentFiles {
  private readonly entries = new Map<number, Entry>();

  constructor(
    private readonly disk: Disk,
    private readonly dir: string,
    private readonly limit: number,
  ) {}

  path(segment: number): string {
    return path.join(this.dir, segmentName(segment));
  }

  /** Makes the file of a new segment and keeps it acquired; `release` it when it takes no more writes. */
  async create(segment: number): Promise<DiskFile> {
    const file = await this.disk.open(this.path(segment), 'create');
    this.entries.set(segment, { file: Promise.resolve(file), opened: file, users: 1, doomed: false });
    return file;
  }

  /** Runs `use` with the segment's file, which stays open meanwhile, even when the segment is unlinked. */
  async with<T>(segment: number, use: (file: DiskFile) => Promise<T>): Promise<T> {
    const file = await this.acquire(segment);
    try {
      return await use(file);
    } finally {
      this.release(segment);
    }
  }

  /** The segment's file for use in this turn alone, if it is open. */
  opened(segment: number): DiskFile | undefined {
    const entry = this.entries.get(segment);
    if (!entry?.opened) return undefined;
    this.used(segment, entry);
    return entry.opened;
  }

  /** Map order is order of use. */
  private used(segment: number, entry: Entry): void {
    this.entries.delete(segment);
    this.entries.set(segment, entry);
  }

  acquire(segment: number): Promise<DiskFile> {
    const entry = this.entries.get(segment) ?? this.open(segment);
    this.used(segment, entry);
    entry.users++;
    if (this.entries.size > this.limit) this.evict();
    return entry.file;
  }

  private open(segment: number): Entry {
    const file = this.disk.open(this.path(segment), 'write');
    const entry: Entry = { file, opened: undefined, users: 0, doomed: false };
    file.then(
      (opened) => {
        entry.opened = opened;
      },
      () => this.entries.delete(segment),
    );
    return entry;
  }

  release(segment: number): void {
    const entry = this.entries.get(segment);
    if (!entry) return;
    entry.users--;
    if (entry.users === 0 && entry.doomed) this.close(segment, entry);
  }

  /** Closes the descriptor once nobody uses it. */
  forget(segment: number): void {
    const entry = this.entries.get(segment);
    if (!entry) return;
    entry.doomed = true;
    if (entry.users === 0) this.close(segment, entry);
  }

  async closeAll(): Promise<void> {
    const files = [...this.entries.values()].map((entry) => entry.file);
    this.entries.clear();
    await Promise.all(files.map(async (file) => (await file).close()));
  }

  private evict(): void {
    for (const [segment, entry] of this.entries) {
      if (this.entries.size <= this.limit) return;
      if (entry.users === 0) this.close(segment, entry);
    }
  }

  private close(segment: number, entry: Entry): void {
    this.entries.delete(segment);
    // Data is made durable by fdatasync alone; what close() reports adds nothing to act upon.
    entry.file.then((file) => file.close()).catch(() => undefined);
  }
}
