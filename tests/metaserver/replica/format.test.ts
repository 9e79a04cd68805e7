import assert from 'node:assert/strict';
import { replaceFile } from '../../../common/disk.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { createPrng } from '../../../common/prng.js';
import {
  checkIdentity,
  type ReplicaFormat,
  readFormat,
  writeFormat,
} from '../../../metaserver/replica/format.js';

const FORMAT: ReplicaFormat = {
  clusterId: 'cluster',
  serverId: 2,
  diskUuid: 'd15c0000-0000-4000-8000-000000000002',
  conf: { voters: [1, 2, 3], votersOutgoing: [], learners: [], roster: [] },
  mayFound: true,
  begun: false,
};

describe('replica format', () => {
  let disk: MemoryDisk;

  beforeEach(() => {
    disk = new MemoryDisk();
  });

  const rewrite = (change: object) =>
    replaceFile(
      disk,
      '/meta/format.json',
      Buffer.from(JSON.stringify({ format: 'holdfast-metaserver', version: 2, ...FORMAT, ...change })),
    );

  it('is undefined for a directory that was never formatted', async () => {
    assert.equal(await readFormat(disk, '/meta'), undefined);
  });

  it('is read as it was written, after a power cut too', async () => {
    await writeFormat(disk, '/meta', FORMAT);
    disk.crash('nothing', createPrng(1));
    assert.deepEqual(await readFormat(disk, '/meta'), FORMAT);
  });

  it('is written once', async () => {
    await writeFormat(disk, '/meta', FORMAT);
    await assert.rejects(writeFormat(disk, '/meta', FORMAT), /already formatted/);
  });

  it('refuses an unknown version, another kind of file and damage, each in one line', async () => {
    const refused = [
      [{ version: 1 }, /format version 1 is not supported; this program knows version 2/],
      [{ format: 'holdfast-chunkserver' }, /not the format file of a metaserver/],
      [{ serverId: 0 }, /serverId/],
      [{ diskUuid: 'x' }, /diskUuid/],
      [{ conf: { voters: ['1'] } }, /conf/],
    ] as const;
    for (const [change, message] of refused) {
      await rewrite(change);
      await assert.rejects(readFormat(disk, '/meta'), (error: Error) => {
        assert.match(error.name, /^Replica(Format|Damaged)Error$/);
        assert.match(error.message, message);
        assert.ok(!error.message.includes('\n'));
        return true;
      });
    }
    await replaceFile(disk, '/meta/format.json', Buffer.from('{"format":'));
    await assert.rejects(readFormat(disk, '/meta'), /format\.json: not valid JSON/);
  });

  it('belongs to one cluster and one server', () => {
    checkIdentity('/meta', FORMAT, { clusterId: 'cluster', serverId: 2 });
    assert.throws(
      () => checkIdentity('/meta', FORMAT, { clusterId: 'x', serverId: 2 }),
      /data of cluster cluster/,
    );
    assert.throws(
      () => checkIdentity('/meta', FORMAT, { clusterId: 'cluster', serverId: 3 }),
      /metaserver 2, not of 3/,
    );
  });
});
