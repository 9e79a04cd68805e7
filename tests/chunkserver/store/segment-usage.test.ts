import assert from 'node:assert/strict';
import { indexKey, pgOfKey, Table } from '../../../chunkserver/store/index-db.js';
import { DAMAGED, SealedIndexDb } from '../../../chunkserver/store/sealed-index-db.js';
import { Machine, pattern, version } from './harness.js';

const FILES = 1000;

describe('what the segments of a chunk store hold', () => {
  let machine: Machine;

  beforeEach(async () => {
    machine = new Machine();
    const store = await machine.boot();
    for (let ino = 1; ino <= FILES; ino++)
      await store.write(1, { ino, chunk: 0 }, 0, pattern(ino, 16), version(ino));
  });

  it('is what is free less, with the headers that the data needs', async () => {
    const { liveBytes, capacityBytes, freeBytes } = machine.store.usage();
    assert.equal(liveBytes, 16 * FILES);
    assert.equal(capacityBytes - freeBytes, (16 + 88) * FILES);
  });

  it('is known to the next process', async () => {
    const { freeBytes } = machine.store.usage();
    await machine.store.close();
    assert.equal((await machine.boot()).usage().freeBytes, freeBytes);
  });

  it('is counted anew where an older index says only how many bytes are live', async () => {
    const { freeBytes } = machine.store.usage();
    await machine.store.close();
    const db = new SealedIndexDb(machine.db);
    const older: { key: Buffer; value: Buffer }[] = [];
    for (const { key, value } of db.range(indexKey(Table.SEGMENT, 0), indexKey(Table.META, 0))) {
      assert.ok(value !== DAMAGED && pgOfKey(key) > 0);
      older.push({ key, value: Buffer.from(value.subarray(0, 8)) });
    }
    assert.ok(older.length > 1);
    await db.commit(older);
    assert.equal((await machine.boot()).usage().freeBytes, freeBytes);
  });
});
