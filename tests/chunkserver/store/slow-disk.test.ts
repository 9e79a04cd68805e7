import assert from 'node:assert/strict';
import { type Deferred, deferred } from '../../../common/deferred.js';
import type { Disk, DiskFile } from '../../../common/disk.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { MAX_PENDING_BYTES } from '../../../common/segment-log.js';
import { blockCrcs } from '../../../proto/block-crc.js';
import { HoldfastError } from '../../../proto/errors.js';
import { drained, Machine, pattern, SEGMENT_BYTES, version } from './harness.js';

const MIB = 1024 * 1024;

/** A disk that takes nothing while it is told to hold on; what it holds it drops when asked to. */
class SlowDisk extends MemoryDisk {
  private held: Deferred<void> | undefined;

  hold(): void {
    this.held = deferred();
  }

  release(): void {
    this.held?.resolve();
    this.held = undefined;
  }

  override async open(...args: Parameters<Disk['open']>): Promise<DiskFile> {
    const file = await super.open(...args);
    return {
      ...file,
      write: async (parts, position) => {
        await this.held?.promise;
        await file.write(parts, position);
      },
    };
  }
}

describe('chunk store on a slow disk', () => {
  it('counts what waits for the disk as taken, so that all that it has admitted finds room', async () => {
    const disk = new SlowDisk();
    disk.capacityBytes = 40 * SEGMENT_BYTES;
    const machine = new Machine({ disk });
    const store = await machine.boot();
    await store.write(1, { ino: 1, chunk: 0 }, 0, pattern(1, 4096), version(1));
    disk.hold();
    const refused: string[] = [];
    const writes: Promise<unknown>[] = [];
    for (let seq = 2; refused.length === 0 && seq < 1000; seq++) {
      const write = store.write(1, { ino: seq, chunk: 0 }, 0, pattern(seq, 4096), version(seq));
      writes.push(
        write.catch((error: unknown) => {
          refused.push(error instanceof HoldfastError ? error.errorName : String(error));
        }),
      );
      store.usage();
      await drained();
    }
    disk.release();
    await Promise.all(writes);
    await machine.clock.advance(10_000);
    assert.deepEqual(refused, ['ENOSPC']);
    assert.deepEqual(machine.failures, []);
    assert.ok(writes.length > (20 * SEGMENT_BYTES) / 4200, `${writes.length} writes`);
    await store.deleteInode(1, 1, version(2000));
  });

  it('takes what its peers may send before they notice, and says how much waits', async () => {
    const disk = new SlowDisk();
    const machine = new Machine({ disk, segmentBytes: 64 * MIB });
    const store = await machine.boot();
    disk.hold();
    const data = Buffer.alloc(4 * MIB, 7);
    const crcs = blockCrcs(0, data);
    const writes: Promise<unknown>[] = [];
    for (let bytes = 0; bytes <= MAX_PENDING_BYTES; bytes += data.length) {
      const seq = writes.length + 1;
      writes.push(store.write(1, { ino: seq, chunk: 0 }, 0, data, version(seq), crcs));
    }
    assert.ok((store.backlogBytes?.() ?? 0) > MAX_PENDING_BYTES);
    const outcome = Promise.allSettled(writes);
    // A disk that is lost ends what waits for it; nothing was refused for its number.
    disk.fail('write', 'EIO', 0, 1);
    disk.release();
    for (const each of await outcome)
      assert.ok(each.status === 'rejected' && (each.reason as HoldfastError).errorName === 'EIO');
  });
});
