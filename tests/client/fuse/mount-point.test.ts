import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  checkMountPoint,
  clearStaleMount,
  isStaleMount,
  MountError,
  parseMountInfo,
} from '../../../client/fuse/mount-point.js';

describe('a mount point', () => {
  let base: string;
  before(async () => {
    base = await realpath(await mkdtemp(path.join(tmpdir(), 'holdfast-point-')));
    for (const name of ['full', 'empty']) await mkdir(path.join(base, name));
    await writeFile(path.join(base, 'full', 'x'), '');
    await writeFile(path.join(base, 'file'), '');
    await symlink('empty', path.join(base, 'link'));
    await symlink('missing', path.join(base, 'dangling'));
  });
  after(() => rm(base, { recursive: true, force: true }));

  const refusals: [string, string, MountError['problem'], RegExp][] = [
    ['a directory that is missing', 'missing', 'missing', /missing: no such directory$/],
    ['a parent that is missing', 'no/where', 'missing', /no such directory$/],
    ['a link to nowhere', 'dangling', 'missing', /no such directory$/],
    ['a file', 'file', 'not-a-directory', /not a directory$/],
    ['a path through a file', 'file/x', 'not-a-directory', /not a directory$/],
    ['a directory that is not empty', 'full', 'not-empty', /not empty$/],
  ];
  for (const [what, name, problem, message] of refusals) {
    it(`may not be ${what}`, async () => {
      await assert.rejects(checkMountPoint(path.join(base, name)), (error: unknown) => {
        assert.ok(error instanceof MountError);
        assert.equal(error.problem, problem);
        assert.match(error.message, message);
        assert.equal(error.message.includes('\n'), false);
        return true;
      });
    });
  }

  it('may not be one already', async () => {
    await assert.rejects(checkMountPoint('/proc'), { problem: 'mounted' });
  });

  it('is an empty directory, and is given without links in its path', async () => {
    const empty = path.join(base, 'empty');
    assert.equal(await checkMountPoint(path.join(base, 'link')), empty);
    assert.equal(await checkMountPoint(`${path.join(base, 'full', '..', 'empty')}/`), empty);
  });

  it('without a mount is not stale, and nothing is cleared', async () => {
    const empty = path.join(base, 'empty');
    assert.deepEqual([await isStaleMount(empty), await clearStaleMount(empty)], [false, false]);
    assert.equal(await isStaleMount('/proc'), false);
  });
});

describe('the list of mounts', () => {
  it('is parsed with optional fields and escapes', () => {
    const text = `24 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
42 24 0:39 / /mnt/with\\040space\\134 rw - fuse.holdfast cluster\\040one rw,user_id=0
nonsense
`;
    assert.deepEqual(parseMountInfo(text), [
      { mountPoint: '/', deviceMajor: 8, deviceMinor: 1, type: 'ext4', source: '/dev/sda1' },
      {
        mountPoint: '/mnt/with space\\',
        deviceMajor: 0,
        deviceMinor: 39,
        type: 'fuse.holdfast',
        source: 'cluster one',
      },
    ]);
  });
});
