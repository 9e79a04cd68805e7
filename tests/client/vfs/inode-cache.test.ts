import assert from 'node:assert/strict';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

const ROOT = 1;
const [f, g] = [Buffer.from('f'), Buffer.from('g')];

describe('attributes that were asked for before a name of the inode was removed here', () => {
  /** A file with two names that another mount made; the first is removed here while the attributes are on their way. */
  const removedMeanwhile = async (known: boolean): Promise<number> => {
    const other = new TestMount();
    const mount = other.second();
    const { ino, handle } = await other.create('f');
    await other.fs.link(caller(), ino, ROOT, g);
    await other.close(handle);
    const { handle: listing } = await mount.fs.opendir(caller(), ROOT, 0);
    await mount.fs.readdir(caller(), ROOT, listing, 0, 10, false);
    if (known) await mount.fs.getattr(caller(), ino);
    await other.fs.setattr(caller(), ino, { mode: 0o600 });
    const arrive = mount.meta.holdAnswers();
    const asked = mount.fs.getattr(caller(), ino);
    await settle();
    await mount.fs.unlink(caller(), ROOT, f);
    arrive();
    await asked;
    return (await mount.fs.getattr(caller(), ino)).attr.nlink;
  };

  it('are not believed when they arrive behind that', async () => {
    assert.equal(await removedMeanwhile(true), 1);
  });

  it('are not believed either of an inode of which nothing was known but the name', async () => {
    assert.equal(await removedMeanwhile(false), 1);
  });
});
