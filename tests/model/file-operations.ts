import fc from 'fast-check';
import { type AclEntry, aclText } from '../posix/acl-text.js';
import type { Argument } from '../posix/agent.js';
import { ALICE, BOB } from '../posix/bench.js';

export type FileCall = [string, ...Argument[]];

/** System calls of one of three users, on one of the mounts, one after the other. */
export interface FileOperations {
  mount: number;
  user: number;
  calls: FileCall[];
}

const CALLS_OF_A_TURN_MAX = 12;

const name = fc.constantFrom('a', 'b', 'c');
const path = fc.oneof(
  { weight: 4, arbitrary: name },
  { weight: 4, arbitrary: fc.tuple(name, name).map((names) => names.join('/')) },
  { weight: 2, arbitrary: fc.tuple(name, name, name).map((names) => names.join('/')) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('.', 'a/.', 'a/', 'b/', 'n'.repeat(255), 'n'.repeat(256)),
  },
);
const mode = fc.constantFrom(
  0o644,
  0o666,
  0o600,
  0o755,
  0o777,
  0o700,
  0o000,
  0o1777,
  0o2775,
  0o4755,
  0o6777,
  0o070,
);
const uid = fc.constantFrom(-1, 0, ALICE.uid, BOB.uid);
const gid = fc.constantFrom(-1, 0, ALICE.gid, BOB.gid, 64_003);
/** Long past: a time that was set is told from the present by it. */
const time = fc.constantFrom('omit', '1000000000123456789', '-5000000001', '7', '999999999999999999');
const size = fc.constantFrom(0, 1, 100, 4096, 5000, 70_000);
const text = fc.constantFrom('', 'x', 'hello', 'y'.repeat(300), 'z'.repeat(5_000));
const fd = fc.integer({ min: 3, max: 6 });
const attribute = fc.constantFrom('user.a', 'user.b', 'trusted.a', 'security.a', 'other.a', 'user.');
const flags = fc.constantFrom(
  'O_RDONLY|O_NONBLOCK',
  'O_WRONLY|O_NONBLOCK',
  'O_RDWR|O_CREAT|O_NONBLOCK',
  'O_RDWR|O_CREAT|O_EXCL|O_NONBLOCK',
  'O_WRONLY|O_CREAT|O_TRUNC|O_NONBLOCK',
  'O_RDWR|O_APPEND|O_CREAT|O_NONBLOCK',
  'O_RDONLY|O_DIRECTORY',
  'O_RDONLY|O_NOFOLLOW|O_NONBLOCK',
  'O_RDWR|O_TMPFILE',
);
const acl = fc
  .constantFrom<AclEntry[][]>(
    [
      ['user', 7],
      ['user', 6, ALICE.uid],
      ['group', 5],
      ['mask', 7],
      ['other', 0],
    ],
    [
      ['user', 6],
      ['group', 4],
      ['group', 7, 64_003],
      ['mask', 5],
      ['other', 4],
    ],
    [
      ['user', 7],
      ['group', 5],
      ['other', 1],
    ],
    [['user', 7]],
  )
  .map((entries) => aclText.format(entries));
const aclName = fc.constantFrom('system.posix_acl_access', 'system.posix_acl_default');

const call = (made: string, ...args: fc.Arbitrary<Argument>[]): fc.Arbitrary<[string, ...Argument[]]> =>
  fc.tuple(...args).map((values) => [made, ...values]);

/** Not to nobody else: of a file that is open for writing the kernel then asks for what it asks for before a write. */
const changeOfOwner = (made: string, of: fc.Arbitrary<Argument>): fc.Arbitrary<[string, ...Argument[]]> =>
  call(made, of, uid, gid).filter(([, , user, group]) => user !== -1 || group !== -1);

const NAMES: fc.WeightedArbitrary<[string, ...Argument[]]>[] = [
  { weight: 6, arbitrary: call('writeAll', path, text, mode) },
  { weight: 6, arbitrary: call('mkdir', path, mode) },
  { weight: 2, arbitrary: call('rmdir', path) },
  { weight: 3, arbitrary: call('unlink', path) },
  { weight: 5, arbitrary: call('rename', path, path) },
  { weight: 2, arbitrary: call('renameat2', path, path, fc.constantFrom(1, 2, 3)) },
  { weight: 3, arbitrary: call('link', path, path, fc.boolean()) },
  { weight: 3, arbitrary: call('symlink', fc.oneof(path, fc.constantFrom('nowhere', 'a/b/c')), path) },
  { weight: 1, arbitrary: call('readlink', path) },
  {
    weight: 1,
    arbitrary: call(
      'mknod',
      path,
      mode.map((bits) => 0o140000 | bits),
    ),
  },
  { weight: 1, arbitrary: call('list', path) },
];

const ATTRIBUTES: fc.WeightedArbitrary<[string, ...Argument[]]>[] = [
  { weight: 3, arbitrary: call('chmod', path, mode) },
  { weight: 3, arbitrary: changeOfOwner('chown', path) },
  { weight: 1, arbitrary: changeOfOwner('lchown', path) },
  { weight: 2, arbitrary: call('utimensat', path, time, time, fc.boolean()) },
  { weight: 1, arbitrary: call('access', path, fc.integer({ min: 0, max: 7 })) },
  { weight: 2, arbitrary: call('truncate', path, size) },
  { weight: 1, arbitrary: call('umask', fc.constantFrom(0, 0o022, 0o077)) },
  {
    weight: 2,
    arbitrary: call(
      'setxattr',
      path,
      attribute,
      fc.constantFrom('', 'v', 'w'.repeat(200)),
      fc.constantFrom(0, 0, 1, 2),
    ),
  },
  { weight: 1, arbitrary: call('getxattr', path, attribute) },
  { weight: 1, arbitrary: call('listxattr', path) },
  { weight: 1, arbitrary: call('removexattr', path, fc.oneof(attribute, aclName)) },
  { weight: 2, arbitrary: call('setxattr', path, aclName, acl) },
];

const FILES: fc.WeightedArbitrary<[string, ...Argument[]]>[] = [
  { weight: 6, arbitrary: call('open', path, flags, mode) },
  { weight: 2, arbitrary: call('close', fd) },
  { weight: 3, arbitrary: call('write', fd, text) },
  { weight: 3, arbitrary: call('pwrite', fd, text, size) },
  { weight: 2, arbitrary: call('pread', fd, fc.constant(100_000), size) },
  { weight: 1, arbitrary: call('read', fd, fc.constant(100)) },
  { weight: 2, arbitrary: call('ftruncate', fd, size) },
  { weight: 1, arbitrary: call('fsync', fd) },
  { weight: 1, arbitrary: call('fchmod', fd, mode) },
  { weight: 1, arbitrary: changeOfOwner('fchown', fd) },
  { weight: 1, arbitrary: call('futimens', fd, time, time) },
  { weight: 1, arbitrary: call('readAll', path) },
  { weight: 2, arbitrary: call('fallocate', fd, fc.constantFrom(0, 1, 3, 16, 17), size, size) },
  { weight: 1, arbitrary: call('lseek', fd, size, fc.constantFrom('SEEK_SET', 'SEEK_END', 'SEEK_HOLE')) },
  { weight: 2, arbitrary: call('copy_file_range', fd, fd, size, size, size) },
];

/** Where the local file system keeps flags of inodes, too. */
const FLAGS: fc.WeightedArbitrary<[string, ...Argument[]]>[] = [
  {
    weight: 3,
    arbitrary: call(
      'chattr',
      path,
      fc.constantFrom('+i', '+a', '-ia', '-ia', '-i', '+dA', '-dA', '-i+a', '+iA'),
    ),
  },
  { weight: 1, arbitrary: call('fchattr', fd, fc.constantFrom('+i', '+a', '-ia')) },
  { weight: 1, arbitrary: call('lsattr', path) },
];

/** On one mount alone: a fifo connects the processes of one kernel's file system, as with any network file system. */
const FIFOS: fc.WeightedArbitrary<[string, ...Argument[]]>[] = [
  { weight: 1, arbitrary: call('mkfifo', path, mode) },
];

/** Sequences of operations that meet one another: few names, few descriptors. @param maxLength turns of the users. @param flags of inodes, too */
export function fileOperations(
  mounts: number,
  maxLength: number,
  flagsToo = false,
): fc.Arbitrary<FileOperations[]> {
  const others = [...(mounts === 1 ? FIFOS : []), ...(flagsToo ? FLAGS : [])];
  const one = fc.oneof(...NAMES, ...ATTRIBUTES, ...FILES, ...others);
  const turn = fc.record({
    mount: fc.integer({ min: 0, max: mounts - 1 }),
    user: fc.constantFrom(0, 0, 1, 2),
    calls: fc.array(one, { minLength: 1, maxLength: CALLS_OF_A_TURN_MAX, size: 'max' }),
  });
  return fc.array(turn, { minLength: 1, maxLength, size: 'max' });
}
