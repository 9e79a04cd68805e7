import assert from 'node:assert/strict';
import { type Deferred, deferred } from '../../common/deferred.js';
import type { Disk } from '../../common/disk.js';
import { MemoryDisk } from '../../common/memory-disk.js';
import { WatchedDisk } from '../../common/watched-disk.js';
import { ManualClock } from '../chunkserver/store/harness.js';

const ASK_MS = 500;

/** A disk whose datasyncs end when the test says so. */
function slowDisk(): { disk: Disk; syncs: Deferred<void>[] } {
  const memory = new MemoryDisk();
  const syncs: Deferred<void>[] = [];
  const disk = Object.assign(memory.mounted(), {
    open: async (...args: Parameters<Disk['open']>) => {
      const file = await memory.open(...args);
      const datasync = (): Promise<void> => {
        const sync = deferred<void>();
        syncs.push(sync);
        return sync.promise;
      };
      return { ...file, datasync };
    },
  });
  return { disk, syncs };
}

describe('a watched disk', () => {
  it('says for how long the oldest call has been under way', async () => {
    const clock = new ManualClock();
    const { disk, syncs } = slowDisk();
    const watched = new WatchedDisk(disk, clock);
    const file = await watched.open('/f', 'create');
    await file.write([Buffer.from('abc')], 0);
    assert.equal(watched.stalledMs(ASK_MS), 0);
    const first = file.datasync();
    await clock.advance(ASK_MS);
    assert.equal(watched.stalledMs(ASK_MS), 500);
    const second = file.datasync();
    await clock.advance(ASK_MS);
    assert.equal(watched.stalledMs(ASK_MS), 1000);
    syncs[0]?.resolve();
    await first;
    assert.equal(watched.stalledMs(ASK_MS), 500);
    syncs[1]?.reject(new Error('EIO'));
    await assert.rejects(second, /EIO/);
    assert.equal(watched.stalledMs(ASK_MS), 0);
  });

  it('does not blame the disk for a pause of the process', async () => {
    const clock = new ManualClock();
    const { disk } = slowDisk();
    const watched = new WatchedDisk(disk, clock);
    void (await watched.open('/f', 'create')).datasync();
    await clock.advance(ASK_MS);
    assert.equal(watched.stalledMs(ASK_MS), 500);
    await clock.advance(60_000);
    assert.equal(watched.stalledMs(ASK_MS), 0);
    await clock.advance(ASK_MS);
    assert.equal(watched.stalledMs(ASK_MS), 500);
  });
});
