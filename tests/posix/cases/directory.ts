import assert from 'node:assert/strict';
import { type Bench, LONGEST_NAME } from '../bench.js';

/** opendir(3), readdir(3): what a listing shows. */
export function directoryCases(bench: Bench): void {
  describe('listings', () => {
    it('hold every entry once, also when there are many, with long names', async () => {
      await bench.root.ok('mkdir', 'd');
      const names: string[] = [];
      for (let i = 0; i < 300; i++) {
        const name = `${i}-${'n'.repeat((i * 7) % 240)}`;
        names.push(name);
        await bench.root.ok('symlink', 'x', `d/${name}`);
      }
      await bench.root.ok('symlink', 'x', `d/${LONGEST_NAME}`);
      names.push(LONGEST_NAME);
      assert.deepEqual(await bench.root.ok('list', 'd'), names.sort());
      for (const name of names.splice(0, 150)) await bench.root.ok('unlink', `d/${name}`);
      assert.deepEqual(await bench.root.ok('list', 'd'), names);
    });

    it('need read permission, names in them search permission', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.file('d/f');
      await bench.root.ok('chmod', 'd', 0o711);
      await bench.alice.fails('EACCES', 'list', 'd');
      await bench.alice.ok('stat', 'd/f');
      await bench.root.ok('chmod', 'd', 0o744);
      assert.deepEqual(await bench.alice.ok('list', 'd'), ['f']);
      await bench.alice.fails('EACCES', 'stat', 'd/f');
    });

    it('"." and ".." are the directory and its parent', async () => {
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkdir', 'd/e');
      assert.equal((await bench.root.stat('d/e/..')).ino, (await bench.root.stat('d')).ino);
      assert.equal((await bench.root.stat('d/e/.')).ino, (await bench.root.stat('d/e')).ino);
      assert.equal((await bench.root.stat('d')).nlink, 3);
    });

    it('show the new parent when an open directory was moved', async () => {
      for (const path of ['d', 'd/e', 'other']) await bench.root.ok('mkdir', path);
      const fd = await bench.root.open('d/e', 'O_RDONLY');
      assert.equal(await bench.root.ok('parentListed', fd), (await bench.root.stat('d')).ino);
      await bench.root.ok('rename', 'd/e', 'other/e');
      assert.equal(await bench.root.ok('parentListed', fd), (await bench.root.stat('other')).ino);
    });
  });
}
