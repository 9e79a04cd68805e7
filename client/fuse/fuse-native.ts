import fs from 'node:fs/promises';
import type { FuseOptions, Signal } from 'fuse-native';
import type { Clock, Timer } from '../../common/clock.js';
import { deferred } from '../../common/deferred.js';
import type { Logger } from '../../common/logger.js';
import type { BindingInfo, Caller, FileSystem, Mount, MountOptions } from './binding.js';
import { findMount, MountError, type MountInfo } from './mount-point.js';
import { type NativeOperations, Operations } from './native/operations.js';
import { PathMap } from './native/path-map.js';
import { runTool } from './tool.js';
import { type UnmountTarget, umountTool, unmountByForce } from './unmount.js';

/** What this binding cannot do; the mount command prints it. */
export const FUSE_NATIVE_LIMITS: readonly string[] = [
  'one user: files belong to the user who mounted, whoever makes them',
  'times: milliseconds, none before 1970; the modification time is set to the access time; touch -a and -m do nothing',
  'names and link targets must be UTF-8: others are left out of listings and refused with EILSEQ',
  'a file deleted while it is open stays as .fuse_hidden* until it is closed',
  'no fallocate, SEEK_HOLE, rename flags, copy_file_range, O_TMPFILE, chattr; locks hold within this mount only',
  'writes of at most 128 KiB; no invalidation: changes by other clients show after up to a second',
  'every stat asks the file system: hard links of one file are cached apart, so attributes are not believed',
  'unless root mounts: no setuid programs, no device files, no other users (see user_allow_other in fuse.conf(5))',
  '^C does not end a blocked request',
];

/** With big_writes; without it every write is 4 KiB. */
const MAX_WRITE_BYTES = 128 * 1024;
const ENDED_POLL_INTERVAL_MS = 250;
/** How long the kernel may believe a name. */
const ENTRY_TIMEOUT_SEC = '1';
/**
 * libfuse 2 gives each path an inode of its own: a change through one hard link never reaches what the kernel keeps
 * of another, so it may keep no attributes.
 */
const ATTR_TIMEOUT_SEC = '0';
const ERANGE = 34;
const FUSE_CONF = '/etc/fuse.conf';

export interface FuseNativeMountOptions extends MountOptions {
  /** Stands for every caller; the user of this process unless given. */
  identity?: { uid: number; gid: number };
}

type FuseModule = typeof import('fuse-native');
type FuseInstance = InstanceType<FuseModule['default']>;

/** Loaded on first use: the kernel binding must work where libfuse 2 is not installed. @throws MountError */
async function loadModule(): Promise<FuseModule['default']> {
  try {
    return (await import('fuse-native')).default;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    const hint = reason.includes('libfuse')
      ? 'libfuse 2 is missing: apt-get install libfuse2'
      : `fuse-native cannot be loaded: ${reason}`;
    throw new MountError('no-library', hint, { cause: error });
  }
}

/** The package's class, with the option string and the two methods that it gets wrong put right. */
function createInstance(
  Fuse: FuseModule['default'],
  mountPoint: string,
  operations: NativeOperations & { init(done: (errno: number) => void): void },
  options: FuseOptions,
  moreOptions: readonly string[],
): FuseInstance {
  class HoldfastFuse extends Fuse {
    protected override _fuseOptions(): string {
      return [super._fuseOptions(), ...moreOptions].join(',');
    }

    /** The package copies without looking at the room there is, and tells libfuse the full length. */
    protected override _op_getxattr(
      signal: Signal,
      path: string,
      name: string,
      into: Buffer,
      position: number,
    ): void {
      operations.getxattr(path, name, position, (errno, value) => {
        signal(errno === 0 && value ? fill(into, value) : errno, into.buffer);
      });
    }

    protected override _op_listxattr(signal: Signal, path: string, into: Buffer): void {
      operations.listxattr(path, (errno, names) => {
        const list = names && Buffer.concat(names.flatMap((name) => [name, NUL]));
        signal(errno === 0 && list ? fill(into, list) : errno, into.buffer);
      });
    }
  }
  return new HoldfastFuse(mountPoint, operations, options);
}

const NUL = Buffer.from([0]);

/** With no room only the length is asked for. @returns the length, or a negative errno */
function fill(into: Buffer, value: Buffer): number {
  if (into.length > 0) {
    if (value.length > into.length) return -ERANGE;
    value.copy(into);
  }
  return value.length;
}

/**
 * Mounts a file system through fuse-native (libfuse 2). Any user may, through fusermount. The mount point must have
 * been checked (checkMountPoint) and be canonical. Main thread only. Requests never time out: they wait as long as
 * the file system does.
 * @throws MountError
 */
export async function mountFuseNative(
  fileSystem: FileSystem,
  options: FuseNativeMountOptions,
  log: Logger,
  clock: Clock,
): Promise<Mount> {
  const Fuse = await loadModule();
  // The package would detach the mount lazily and at once, and give up when its fusermount is missing.
  Fuse.unmount = (_mountPoint, done) => done(null);
  const interrupt = new AbortController();
  const caller: Caller = {
    uid: options.identity?.uid ?? process.getuid?.() ?? 0,
    gid: options.identity?.gid ?? process.getgid?.() ?? 0,
    pid: process.pid,
    signal: interrupt.signal,
  };
  const info: BindingInfo = {
    kind: 'fuse-native',
    maxWrite: MAX_WRITE_BYTES,
    callerIdentity: false,
    nanoseconds: false,
  };
  const paths = new PathMap(fileSystem, caller, clock);
  const operations = new Operations({ fs: fileSystem, paths, caller, log });
  const initialised = deferred<void>();
  const table = {
    ...operations.table(),
    init(done: (errno: number) => void) {
      Promise.resolve(fileSystem.init?.(info)).then(initialised.resolve, initialised.reject);
      done(0);
    },
  };
  const instance = createInstance(
    Fuse,
    options.mountPoint,
    table,
    {
      timeout: false,
      allowOther: options.allowOther && (await mayAllowOther()),
      defaultPermissions: true,
      fsname: options.fsName,
      subtype: 'holdfast',
      autoCache: true,
      attrTimeout: ATTR_TIMEOUT_SEC,
      entryTimeout: ENTRY_TIMEOUT_SEC,
    },
    [
      'big_writes',
      'use_ino',
      options.readOnly ? 'ro' : 'rw',
      // libfuse adds nodev and nosuid, which only root may take back.
      ...(process.getuid?.() === 0 ? ['dev', 'suid'] : []),
    ],
  );
  await new Promise<void>((resolve, reject) => {
    instance.mount((error) => (error ? reject(mountError(options.mountPoint, error)) : resolve()));
  });
  const state = { fileSystem, operations, paths, interrupt, instance, log, clock };
  const mount = new FuseNativeMount(options.mountPoint, info, state, await findMount(options.mountPoint));
  try {
    await initialised.promise;
  } catch (error) {
    await mount.unmount(0);
    throw error;
  }
  return mount;
}

function mountError(mountPoint: string, cause: Error): MountError {
  const hint = 'is fuse3 (fusermount) installed, and /dev/fuse accessible?';
  return new MountError('failed', `cannot mount ${mountPoint}: ${cause.message}; ${hint}`, { cause });
}

/** Root may always let others in; another user where the administrator allows it. */
async function mayAllowOther(): Promise<boolean> {
  if (process.getuid?.() === 0) return true;
  const conf = await fs.readFile(FUSE_CONF, 'utf8').catch(() => '');
  return /^\s*user_allow_other\s*$/m.test(conf);
}

interface MountState {
  fileSystem: FileSystem;
  operations: Operations;
  paths: PathMap;
  interrupt: AbortController;
  instance: FuseInstance;
  log: Logger;
  clock: Clock;
}

/** libfuse does not say when its loop has ended: the list of mounts is watched instead. */
class FuseNativeMount implements Mount {
  readonly ended: Promise<void>;
  private readonly done = deferred<void>();
  private readonly gone = deferred<void>();
  private isGone = false;
  private readonly poll: Timer;
  private unmounting: Promise<void> | undefined;

  constructor(
    private readonly mountPoint: string,
    readonly info: BindingInfo,
    private readonly state: MountState,
    private readonly mounted: MountInfo | undefined,
  ) {
    this.ended = this.done.promise;
    this.ended.catch(() => undefined);
    this.poll = state.clock.every(ENDED_POLL_INTERVAL_MS, () => void this.look());
  }

  unmount(graceMs: number): Promise<void> {
    this.unmounting ??= this.takeDown(graceMs);
    return this.unmounting;
  }

  private async takeDown(graceMs: number): Promise<void> {
    if (!this.isGone) {
      const target: UnmountTarget = {
        mountPoint: this.mountPoint,
        connection: this.mounted?.deviceMinor,
        hasEnded: () => this.isGone,
        ended: this.gone.promise,
        umount: this.umountTool(),
      };
      await unmountByForce(target, graceMs, this.state.clock, this.state.log);
      await this.finish();
    }
    await this.ended;
  }

  /** umount(8) for root, fusermount for everyone else; afterwards the list of mounts is looked at once. */
  private umountTool(): UnmountTarget['umount'] {
    const { clock } = this.state;
    const root = process.getuid?.() === 0;
    const asRoot = umountTool(clock, this.mountPoint);
    return async (lazy, timeoutMs) => {
      const result = root
        ? await asRoot(lazy, timeoutMs)
        : await runTool(clock, 'fusermount3', ['-u', ...(lazy ? ['-z'] : []), this.mountPoint], timeoutMs);
      await this.look();
      return result;
    };
  }

  private async look(): Promise<void> {
    if (this.isGone) return;
    try {
      const mount = await findMount(this.mountPoint);
      if (mount && mount.deviceMinor === this.mounted?.deviceMinor) return;
      // Detached lazily it lives on until nobody uses it; only its connection tells.
      if (this.mounted && (await connectionExists(this.mounted.deviceMinor))) return;
      await this.finish();
    } catch (error) {
      this.state.log.error({ err: error }, 'the list of mounts cannot be read');
    }
  }

  private async finish(): Promise<void> {
    if (this.isGone) return;
    this.isGone = true;
    this.poll.cancel();
    this.gone.resolve();
    const { fileSystem, operations, paths, interrupt, instance, log } = this.state;
    // Frees what libfuse's threads wait for, and the handle that keeps the event loop alive.
    interrupt.abort();
    instance.unmount((error) => {
      if (error) log.warn({ err: error }, 'fuse-native was not closed cleanly');
    });
    try {
      for (const file of operations.handles.drain()) {
        await fileSystem.release(file.ino, file.handle, file.flags);
      }
      paths.clear();
      await fileSystem.destroy?.();
      this.done.resolve();
    } catch (error) {
      log.error({ err: error }, 'the file system could not be closed cleanly');
      this.done.reject(error);
    }
  }
}

async function connectionExists(connection: number): Promise<boolean> {
  return fs.access(`/sys/fs/fuse/connections/${connection}`).then(
    () => true,
    () => false,
  );
}
