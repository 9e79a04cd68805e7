import { spawnSync } from 'node:child_process';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Features } from './bench.js';

/** What a mount of Holdfast offers. */
export const MOUNT_FEATURES: Features = {
  xattrs: true,
  acls: true,
  linux: true,
  reserves: true,
  relatime: true,
  flags: true,
};

/** Tries what its second argument names on the file of its first. */
const PROBE = `
import os, sys, ctypes
path, what = sys.argv[1:3]
if what == 'xattrs':
    os.setxattr(path, 'user.probe', b'x' * 2000)
    os.setxattr(path, 'trusted.probe', b'x')
elif what == 'acls':
    os.setxattr(path, 'system.posix_acl_access', bytes.fromhex(
        '0200000001000600ffffffff0200040001000000040004' + '00ffffffff10000400ffffffff20000400ffffffff'))
elif what == 'reserves':
    fd = os.open(path, os.O_RDWR)
    os.posix_fallocate(fd, 0, 1 << 20)
    sys.exit(os.fstat(fd).st_blocks * 512 < 1 << 20)
elif what == 'flags':
    import fcntl
    fd = os.open(path, os.O_RDONLY)
    was = bytearray(8)
    fcntl.ioctl(fd, 0x80086601, was, True)
    for bit in (0x10, 0x20, 0x40, 0x80):
        fcntl.ioctl(fd, 0x40086602, bytearray((int.from_bytes(was, 'little') | bit).to_bytes(8, 'little')), True)
        fcntl.ioctl(fd, 0x40086602, was, True)
elif what == 'relatime':
    os.utime(path, ns=(0, 0))
    os.read(os.open(path, os.O_RDONLY), 1)
    sys.exit(os.stat(path).st_atime_ns == 0)
else:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    if libc.fallocate(fd, 3, ctypes.c_int64(0), ctypes.c_int64(4096)) or \\
       libc.fallocate(fd, 16, ctypes.c_int64(0), ctypes.c_int64(4096)): sys.exit(1)
    os.close(os.open(os.path.dirname(path), os.O_RDWR | 0o20200000, 0o600))
`;

/** What the file system of a directory that is not ours offers, found by trying. */
export function localFeatures(dir: string): Features {
  const file = join(dir, `probe-${process.pid}`);
  writeFileSync(file, 'x'.repeat(8192));
  chmodSync(file, 0o644);
  const can = (what: string): boolean =>
    spawnSync('python3', ['-c', PROBE, file, what], { stdio: 'ignore', cwd: '/' }).status === 0;
  const features = {
    xattrs: can('xattrs'),
    acls: can('acls'),
    linux: can('linux'),
    reserves: can('reserves'),
    relatime: can('relatime'),
    flags: can('flags'),
  };
  rmSync(file);
  return features;
}
