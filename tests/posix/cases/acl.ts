import assert from 'node:assert/strict';
import { type AclEntry, aclText } from '../acl-text.js';
import type { Agent } from '../agent.js';
import { ALICE, type Bench, BOB, type Features, touchedTimes } from '../bench.js';

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';
const UNSUPPORTED = ['EOPNOTSUPP', 'ENOTSUP'];

/** u::rw- u:bob:rw- g::r-- m::rw- o::--- */
const BOB_WRITES: AclEntry[] = [
  ['user', 6],
  ['user', 6, BOB.uid],
  ['group', 4],
  ['mask', 6],
  ['other', 0],
];

async function get(agent: Agent, path: string, name: string): Promise<AclEntry[]> {
  return aclText.parse(await agent.ok<string>('getxattr', path, name));
}

function set(agent: Agent, path: string, name: string, entries: readonly AclEntry[]): Promise<unknown> {
  return agent.ok('setxattr', path, name, aclText.format(entries));
}

/** Access control lists, as acl(5) has them. */
export function aclCases(bench: Bench, features: Features): void {
  describe('access control lists', () => {
    before(function () {
      if (!features.acls) this.skip();
    });
    accessCases(bench);
    defaultCases(bench);
  });
}

function accessCases(bench: Bench): void {
  it('a list is kept, the mode shows its mask as the group class, and the ctime changes', async () => {
    await bench.root.file('f', '', 0o600);
    assert.equal(
      await touchedTimes(bench.root, 'f', () => set(bench.root, 'f', ACCESS, BOB_WRITES)),
      'ctime',
    );
    assert.deepEqual(await get(bench.root, 'f', ACCESS), BOB_WRITES);
    assert.equal((await bench.root.stat('f')).mode, 0o660);
    assert.deepEqual(await bench.root.ok('listxattr', 'f'), [ACCESS]);
  });

  it('a list of the three ordinary entries is the mode, and is not kept', async () => {
    await bench.root.file('f', '', 0o600);
    await set(bench.root, 'f', ACCESS, BOB_WRITES);
    await set(bench.root, 'f', ACCESS, [
      ['user', 7],
      ['group', 5],
      ['other', 4],
    ]);
    assert.equal((await bench.root.stat('f')).mode, 0o754);
    await bench.root.fails('ENODATA', 'getxattr', 'f', ACCESS);
    assert.deepEqual(await bench.root.ok('listxattr', 'f'), []);
  });

  it('decides for named users and groups, within the mask', async () => {
    await bench.root.file('f', 'x', 0o600);
    await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    await bench.bob.fails('EACCES', 'open', 'f', 'O_RDONLY');
    await set(bench.root, 'f', ACCESS, BOB_WRITES);
    await bench.bob.ok('close', await bench.bob.open('f', 'O_RDWR'));
    await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    await bench.root.ok('chmod', 'f', 0o640);
    await bench.bob.fails('EACCES', 'open', 'f', 'O_RDWR');
    assert.equal(await bench.bob.ok('readAll', 'f'), 'x');
    await set(bench.root, 'f', ACCESS, [
      ['user', 6],
      ['group', 0],
      ['group', 6, 64_003],
      ['mask', 7],
      ['other', 0],
    ]);
    await bench.bob.ok('close', await bench.bob.open('f', 'O_RDWR'));
    await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
  });

  it('may take from a named user what all others have', async () => {
    await bench.root.file('f', 'x', 0o644);
    await set(bench.root, 'f', ACCESS, [
      ['user', 6],
      ['user', 0, ALICE.uid],
      ['group', 4],
      ['mask', 4],
      ['other', 4],
    ]);
    await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    assert.equal(await bench.bob.ok('readAll', 'f'), 'x');
  });

  it('decides over directories too', async () => {
    await bench.root.ok('mkdir', 'd', 0o700);
    await bench.root.file('d/f', 'x');
    await bench.bob.fails('EACCES', 'stat', 'd/f');
    await set(bench.root, 'd', ACCESS, [
      ['user', 7],
      ['user', 7, BOB.uid],
      ['group', 0],
      ['mask', 7],
      ['other', 0],
    ]);
    await bench.bob.ok('stat', 'd/f');
    await bench.bob.ok('mkdir', 'd/e');
    await bench.alice.fails('EACCES', 'stat', 'd/f');
  });

  it('chmod changes owner, mask and others in the list, not its group', async () => {
    await bench.root.file('f', '', 0o600);
    await set(bench.root, 'f', ACCESS, BOB_WRITES);
    await bench.root.ok('chmod', 'f', 0o741);
    assert.equal((await bench.root.stat('f')).mode, 0o741);
    assert.deepEqual(await get(bench.root, 'f', ACCESS), [
      ['user', 7],
      ['user', 6, BOB.uid],
      ['group', 4],
      ['mask', 4],
      ['other', 1],
    ]);
  });

  it('taking the list away leaves the mode', async () => {
    await bench.root.file('f', '', 0o600);
    await set(bench.root, 'f', ACCESS, BOB_WRITES);
    await bench.root.ok('removexattr', 'f', ACCESS);
    await bench.root.fails('ENODATA', 'getxattr', 'f', ACCESS);
    assert.equal((await bench.root.stat('f')).mode, 0o660);
    await bench.bob.fails('EACCES', 'open', 'f', 'O_RDONLY');
  });

  it('is for the owner to set: EPERM; EINVAL when malformed; EOPNOTSUPP on symbolic links', async () => {
    await bench.root.file('f', '', 0o666);
    await bench.alice.fails('EPERM', 'setxattr', 'f', ACCESS, aclText.format(BOB_WRITES));
    await bench.alice.fails('EPERM', 'removexattr', 'f', ACCESS);
    await bench.root.ok('chown', 'f', ALICE.uid, ALICE.gid);
    await set(bench.alice, 'f', ACCESS, BOB_WRITES);
    for (const bad of [
      [['user', 6]],
      [
        ['user', 6],
        ['user', 6, BOB.uid],
        ['group', 4],
        ['other', 0],
      ],
      [
        ['user', 6],
        ['group', 4],
        ['other', 8],
      ],
    ] as AclEntry[][])
      await bench.root.fails('EINVAL', 'setxattr', 'f', ACCESS, aclText.format(bad));
    await bench.root.ok('symlink', 'f', 'l');
    await bench.root.fails(UNSUPPORTED, 'lsetxattr', 'l', ACCESS, aclText.format(BOB_WRITES));
  });

  it('setting one as an owner outside the group takes setgid away', async () => {
    await bench.root.file('f', '', 0o644);
    await bench.root.ok('chown', 'f', ALICE.uid, 64_003);
    await bench.root.ok('chmod', 'f', 0o2755);
    await set(bench.alice, 'f', ACCESS, BOB_WRITES);
    assert.equal((await bench.root.stat('f')).mode, 0o660);
  });
}

function defaultCases(bench: Bench): void {
  const inherited: AclEntry[] = [
    ['user', 7],
    ['user', 7, BOB.uid],
    ['group', 5],
    ['mask', 7],
    ['other', 0],
  ];

  it('a default list is for directories alone: EACCES, and does not change the mode', async () => {
    await bench.root.file('f', '', 0o644);
    await bench.root.fails('EACCES', 'setxattr', 'f', DEFAULT, aclText.format(inherited));
    await bench.root.ok('mkdir', 'd', 0o755);
    await set(bench.root, 'd', DEFAULT, inherited);
    assert.equal((await bench.root.stat('d')).mode, 0o755);
    assert.deepEqual(await get(bench.root, 'd', DEFAULT), inherited);
    await bench.root.ok('removexattr', 'd', DEFAULT);
    await bench.root.fails('ENODATA', 'getxattr', 'd', DEFAULT);
  });

  it('new files take it as their list, cut by the mode asked for; the umask does not count', async () => {
    await bench.root.ok('mkdir', 'd', 0o777);
    await set(bench.root, 'd', DEFAULT, inherited);
    await bench.root.ok('umask', 0o077);
    await bench.root.ok('close', await bench.root.open('d/f', 'O_CREAT|O_WRONLY', 0o664));
    await bench.root.ok('mknod', 'd/p', 0o010640, 0);
    await bench.root.ok('umask', 0);
    assert.equal((await bench.root.stat('d/f')).mode, 0o660);
    assert.deepEqual(await get(bench.root, 'd/f', ACCESS), [
      ['user', 6],
      ['user', 7, BOB.uid],
      ['group', 5],
      ['mask', 6],
      ['other', 0],
    ]);
    assert.equal((await bench.root.stat('d/p')).mode, 0o640);
    await bench.root.fails('ENODATA', 'getxattr', 'd/f', DEFAULT);
    await bench.bob.ok('close', await bench.bob.open('d/f', 'O_RDWR'));
    await bench.alice.fails('EACCES', 'open', 'd/f', 'O_RDONLY');
  });

  it('new directories take it as both lists, and hand it down', async () => {
    await bench.root.ok('mkdir', 'd', 0o777);
    await set(bench.root, 'd', DEFAULT, inherited);
    await bench.root.ok('mkdir', 'd/e', 0o777);
    await bench.root.ok('mkdir', 'd/e/f', 0o750);
    assert.deepEqual(await get(bench.root, 'd/e', DEFAULT), inherited);
    assert.deepEqual(await get(bench.root, 'd/e', ACCESS), inherited);
    assert.deepEqual(await get(bench.root, 'd/e/f', DEFAULT), inherited);
    assert.equal((await bench.root.stat('d/e')).mode, 0o770);
    assert.equal((await bench.root.stat('d/e/f')).mode, 0o750);
  });

  it('a default of three entries gives new files a mode and no list; symbolic links take none', async () => {
    await bench.root.ok('mkdir', 'd', 0o777);
    await set(bench.root, 'd', DEFAULT, [
      ['user', 7],
      ['group', 0],
      ['other', 5],
    ]);
    await bench.root.ok('umask', 0o777);
    await bench.root.ok('close', await bench.root.open('d/f', 'O_CREAT|O_WRONLY', 0o666));
    await bench.root.ok('symlink', 'f', 'd/l');
    await bench.root.ok('umask', 0);
    assert.equal((await bench.root.stat('d/f')).mode, 0o604);
    assert.equal((await bench.root.lstat('d/l')).mode, 0o777);
    await bench.root.fails('ENODATA', 'getxattr', 'd/f', ACCESS);
  });
}
