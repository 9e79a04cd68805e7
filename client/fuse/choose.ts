import fs from 'node:fs/promises';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { FileSystem, Mount } from './binding.js';
import { type FuseNativeMountOptions, mountFuseNative } from './fuse-native.js';
import { systemErrorCode } from './kernel/device.js';
import { FUSE_DEVICE, type KernelMountOptions, mountKernel } from './kernel/mount.js';
import { checkMountPoint, MountError } from './mount-point.js';

/** Which binding mounts; `auto` takes the kernel binding wherever it may mount. */
export type BindingChoice = 'auto' | 'kernel' | 'fuse-native';

export interface MountFileSystemOptions extends KernelMountOptions, FuseNativeMountOptions {
  binding: BindingChoice;
}

const CAP_SYS_ADMIN = 21n;

/** Whether this process may call mount(2): its effective capabilities hold CAP_SYS_ADMIN (root's normally do). */
export async function mayMount(): Promise<boolean> {
  const status = await fs.readFile('/proc/self/status', 'utf8');
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/** @throws MountError when /dev/fuse is missing, or is not for this user */
async function checkDevice(): Promise<void> {
  try {
    await fs.access(FUSE_DEVICE, fs.constants.R_OK | fs.constants.W_OK);
  } catch (error) {
    if (systemErrorCode(error) === 'EACCES') {
      const hint = `run as root, or let users have it: chmod 666 ${FUSE_DEVICE}`;
      throw new MountError('no-permission', `no permission for ${FUSE_DEVICE}: ${hint}`, { cause: error });
    }
    const hint = 'load the kernel module (modprobe fuse) and install fuse3 (apt-get install fuse3)';
    throw new MountError('no-device', `this machine has no ${FUSE_DEVICE}: ${hint}`, { cause: error });
  }
}

/**
 * Mounts a file system on an empty directory.
 * @throws MountError with one line for the user: no FUSE, no permission, or what is wrong with the mount point
 */
export async function mountFileSystem(
  fileSystem: FileSystem,
  options: MountFileSystemOptions,
  log: Logger,
  clock: Clock,
): Promise<Mount> {
  const mountPoint = await checkMountPoint(options.mountPoint, clock);
  await checkDevice();
  const privileged = await mayMount();
  if (options.binding === 'kernel' && !privileged) {
    const hint = 'run as root, or take --binding fuse-native';
    throw new MountError('no-permission', `the kernel binding needs CAP_SYS_ADMIN to mount: ${hint}`);
  }
  const mount = privileged && options.binding !== 'fuse-native' ? mountKernel : mountFuseNative;
  return mount(fileSystem, { ...options, mountPoint }, log, clock);
}
