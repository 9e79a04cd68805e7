import path from 'node:path';
import type { Disk, DiskFile } from './disk.js';
import { segmentName } from './segment-log-format.js';

interface Entry {
  file: Promise<DiskFile>;
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
    this.entries.set(segment, { file: Promise.resolve(file), users: 1, doomed: false });
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

  acquire(segment: number): Promise<DiskFile> {
    let entry = this.entries.get(segment);
    if (entry) {
      // Map order is order of use.
      this.entries.delete(segment);
    } else {
      entry = { file: this.disk.open(this.path(segment), 'write'), users: 0, doomed: false };
      entry.file.catch(() => this.entries.delete(segment));
    }
    this.entries.set(segment, entry);
    entry.users++;
    if (this.entries.size > this.limit) this.evict();
    return entry.file;
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
