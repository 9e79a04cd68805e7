import assert from 'node:assert/strict';
import { FileTable, O_RDONLY } from '../../../client/vfs/file-table.js';
import { DataHarness, pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';

const BYTES = pattern(100, 1);

describe('a file that is taken into use again to be written once more', () => {
  let mount: DataHarness;
  let table: FileTable;
  beforeEach(() => {
    mount = new DataHarness();
    table = new FileTable(mount.deps);
  });

  it('is in use until that ends, and what was put into it meanwhile is written back first', async () => {
    const { attr } = mount.inode;
    const end = table.revive(attr);
    const file = table.get(attr.ino);
    assert.ok(end && file && table.isSole(attr.ino));
    await file.write(0, BYTES);
    assert.ok(!file.clean);
    const release = mount.chunks.hold();
    end();
    await settle();
    assert.equal(table.get(attr.ino), file, 'it stays while its bytes are on their way');
    release();
    await settle();
    assert.equal(table.get(attr.ino), undefined);
    assert.equal(mount.inode.attr.size, BYTES.length);
  });

  it('is the same one as that of a program which opened it', () => {
    const { attr } = mount.inode;
    const opened = table.acquire(attr, false);
    table.open(opened, O_RDONLY);
    const end = table.revive(attr);
    assert.equal(table.get(attr.ino), opened);
    assert.ok(end && !table.isSole(attr.ino));
    end();
    assert.equal(table.get(attr.ino), opened, 'the program still uses it');
    assert.ok(table.isSole(attr.ino));
  });

  it('is left alone where nothing is known of it, it has no name, or others may have written to it', () => {
    const { attr } = mount.inode;
    assert.equal(table.revive(undefined), undefined);
    assert.equal(table.revive({ ...attr, nlink: 0 }), undefined);
    mount.owns = false;
    assert.equal(table.revive(attr), undefined);
    assert.equal(table.get(attr.ino), undefined);
  });

  it('cannot end the mount when what its end does fails', async () => {
    const { attr } = mount.inode;
    const end = table.revive(attr);
    const file = table.get(attr.ino);
    assert.ok(end && file);
    const flushed: string[] = [];
    await file.write(0, BYTES);
    file.flush = () => {
      flushed.push('asked');
      return Promise.reject(new Error('out of order'));
    };
    const unhandled: unknown[] = [];
    const note = (error: unknown): number => unhandled.push(error);
    process.on('unhandledRejection', note);
    end();
    await settle();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', note);
    assert.deepEqual([flushed, unhandled], [['asked'], []]);
  });
});
