import type { Disk, DiskFile } from '../../common/disk.js';
import type { MemoryDisk } from '../../common/memory-disk.js';
import type { Prng } from '../../common/prng.js';
import type { SimProcess } from './process.js';

const SYNC_MIN_MS = 0.1;
const SYNC_MAX_MS = 3;
const SLOW_CHANCE = 0.02;
const SLOW_MAX_MS = 60;

const LOG_DIRECTORY = '/log/';

/** What may be wrong with a disk beside what MemoryDisk.fail() says. */
export interface DiskMood {
  /** fdatasync takes so much longer, ms. */
  extraSyncMs: number;
  /** A planted bug: fdatasync of a log does nothing. */
  lies: boolean;
}

/** The disk as one life of a process sees it: syncs take time, and may or may not be through when the power goes. */
export function processDisk(disk: MemoryDisk, process: SimProcess, prng: Prng, mood: DiskMood): Disk {
  const mounted = disk.mounted();
  const wait = (ms: number): Promise<void> => new Promise((resolve) => process.clock.after(ms, resolve));
  const datasync = async (file: DiskFile, name: string): Promise<void> => {
    if (mood.lies && name.includes(LOG_DIRECTORY)) return;
    let ms = SYNC_MIN_MS + prng.float() * (SYNC_MAX_MS - SYNC_MIN_MS) + mood.extraSyncMs;
    if (prng.float() < SLOW_CHANCE) ms += prng.float() * SLOW_MAX_MS;
    // What is written while a sync runs is not covered by it: here sometimes, sometimes not.
    const early = prng.float() < 0.5;
    if (early) await file.datasync();
    await wait(ms);
    if (!early) await file.datasync();
  };
  const slow = (file: DiskFile, name: string): DiskFile => ({
    write: (parts, position) => file.write(parts, position),
    read: (target, position) => file.read(target, position),
    datasync: () => datasync(file, name),
    size: () => file.size(),
    truncate: (length) => file.truncate(length),
    close: () => file.close(),
  });
  return {
    open: async (name, mode) => slow(await mounted.open(name, mode), name),
    mkdir: (dir) => mounted.mkdir(dir),
    list: (dir) => mounted.list(dir),
    unlink: (name) => mounted.unlink(name),
    rename: (from, to) => mounted.rename(from, to),
    syncDir: (dir) => mounted.syncDir(dir),
    space: (dir) => mounted.space(dir),
  };
}
