import assert from 'node:assert/strict';
import { CHUNK_BYTES, Machine, pattern, version } from './harness.js';

describe('chunk store: holes', () => {
  it('are punched, read as zeros, free their space, and are where no range of data is', async () => {
    const machine = new Machine();
    await machine.boot();
    const key = { ino: 5, chunk: 2 };
    const data = pattern(1, 3000);
    await machine.store.write(1, key, 0, data, version(1));
    const { allocatedDelta } = await machine.store.punch(1, key, 1000, 500, version(2));
    assert.equal(allocatedDelta, -500);
    assert.equal(machine.store.usage().liveBytes, 2500);
    const read = await machine.store.read(1, key, 990, 520);
    assert.deepEqual(
      Buffer.concat(read.data),
      Buffer.concat([data.subarray(990, 1000), Buffer.alloc(500), data.subarray(1500, 1510)]),
    );
    const ranges = [
      { start: 0, end: 1000 },
      { start: 1500, end: 3000 },
    ];
    assert.deepEqual(machine.store.ranges(1, { ino: 5, chunk: 0 }), { chunk: 2, ranges });
    assert.equal(machine.store.ranges(1, { ino: 5, chunk: 3 }), undefined);
    await machine.store.punch(1, key, 0, CHUNK_BYTES, version(3));
    assert.equal(machine.store.ranges(1, { ino: 5, chunk: 0 }), undefined, 'a chunk of nothing but a hole');
    assert.deepEqual(await machine.store.punch(1, { ino: 6, chunk: 0 }, 0, 10, version(4)), {
      allocatedDelta: 0,
    });
    assert.equal(machine.store.chunkInfo(1, { ino: 6, chunk: 0 }), undefined);
    await machine.store.close();
  });

  it('survive a crash from the log', async () => {
    const machine = new Machine();
    await machine.boot();
    const key = { ino: 5, chunk: 0 };
    await machine.store.write(1, key, 0, pattern(1, 3000), version(1));
    await machine.store.punch(1, key, 0, 2000, version(2));
    await machine.store.sync();
    await machine.crash('random', 1);
    assert.deepEqual(machine.store.ranges(1, key), { chunk: 0, ranges: [{ start: 2000, end: 3000 }] });
    assert.deepEqual(machine.store.pgState(1).last, version(2));
    await machine.store.close();
  });
});
