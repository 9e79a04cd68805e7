import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { holdfast } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { ONE_OF_EACH, TestCluster } from '../lab/test-cluster.js';
import { fileCases, programCases, sourceTreeCases } from './support/tool-cases.js';

/** Each stat is a request to user space here: a smaller tree than the kernel binding's. */
const TREE_FILES = 400;

describe('standard tools on a mount by fuse-native', function () {
  this.timeout(300_000);
  const cluster = new TestCluster('native', ['--binding', 'fuse-native', ...ONE_OF_EACH]);
  let local: string;

  before(async () => {
    local = temporaryDirectory('native-local');
    await cluster.up();
  });
  after(async () => {
    await cluster.destroy();
    rmSync(local, { recursive: true, force: true });
  });

  it('says at mount time what it cannot do', async () => {
    const dir = await cluster.mount('told');
    await cluster.umount(dir);
    const again = await holdfast([
      'mount',
      dir,
      '--data',
      cluster.data,
      '--binding',
      'fuse-native',
      '--json',
    ]);
    assert.equal(again.code, 0, again.stderr);
    const { binding, limits } = JSON.parse(again.stdout) as { binding: string; limits: string[] };
    assert.equal(binding, 'fuse-native');
    assert.ok(limits.length >= 4, String(limits));
    assert.equal((await holdfast(['umount', dir])).code, 0);
  });

  const context = {
    dir: () => cluster.dir,
    local: () => local,
    // The documented limits of this binding (README).
    can: { bytesNames: false, nanoseconds: false, modificationTimes: false, sharedMmap: true },
  };
  sourceTreeCases(context, TREE_FILES);
  programCases(context);
  fileCases(context);
});
