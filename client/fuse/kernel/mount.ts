import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Clock, delay } from '../../../common/clock.js';
import { deferred } from '../../../common/deferred.js';
import type { Logger } from '../../../common/logger.js';
import { S_IFDIR } from '../../../proto/types.js';
import type { BindingInfo, FileSystem, Mount, MountOptions } from '../binding.js';
import { findMount, MountError, type MountInfo } from '../mount-point.js';
import { runTool } from '../tool.js';
import { umountTool, unmountByForce } from '../unmount.js';
import { BUSY_POLL_US, BusyPoll } from './busy-poll.js';
import { type FuseDevice, openFuseDevice, systemErrorCode } from './device.js';
import { defaultProtocolOptions, MAX_WRITE_BYTES, type ProtocolOptions } from './init.js';
import { Interrupts, parseSignals, type Signals } from './interrupts.js';
import { KernelNotifier } from './notify.js';
import { Session } from './session.js';
import { TakenIn } from './taken-in.js';
import { lookAtThreads } from './thread-state.js';
import { isSupportedByteOrder } from './wire.js';

export const FUSE_DEVICE = '/dev/fuse';
/** Shown as fuse.holdfast in /proc/mounts. */
export const FUSE_SUBTYPE = 'holdfast';
/** Threads of libuv's pool where UV_THREADPOOL_SIZE does not say otherwise. */
const DEFAULT_THREAD_POOL_THREADS = 4;
/** What a process that mounts should put into UV_THREADPOOL_SIZE before its first use of the pool. */
export const RECOMMENDED_THREAD_POOL_THREADS = 16;
const MAX_NOTIFY_WRITES = 5;
/** The kernel reads ahead so much of a file in one go; by itself it would take 128 KiB. */
export const DEFAULT_READ_AHEAD_BYTES = 1024 * 1024;
const MOUNT_TIMEOUT_MS = 30_000;
/** File systems get so long to end the requests that an unmount has interrupted. */
const DRAIN_TIMEOUT_MS = 1_000;
const DRAIN_INTERVAL_MS = 20;
const ABORTED_WAIT_MS = 1_000;

export interface KernelMountOptions extends MountOptions {
  /** Overrides of what INIT asks for. */
  protocol?: Partial<ProtocolOptions>;
  readAheadBytes?: number;
}

/**
 * Mounts a file system through /dev/fuse. The mount point must have been checked (checkMountPoint), and be canonical.
 * The pool of libuv needs a thread for each reader, one for notifications and one to spare: set UV_THREADPOOL_SIZE.
 * @throws MountError
 */
export async function mountKernel(
  fileSystem: FileSystem,
  options: KernelMountOptions,
  log: Logger,
  clock: Clock,
): Promise<Mount> {
  if (!isSupportedByteOrder()) throw new MountError('failed', 'only little-endian machines are supported');
  const fd = openDevice();
  const device = openFuseDevice(fd);
  const readers = device.readsMax;
  const notifyWrites = notifyThreads(device, readers * device.threadsPerRead);
  const keepsLocks = fileSystem.setlk !== undefined && fileSystem.getlk !== undefined;
  const takenIn = new TakenIn(clock, lookAtThreads());
  const info: BindingInfo = {
    kind: 'kernel',
    maxWrite: MAX_WRITE_BYTES,
    callerIdentity: true,
    nanoseconds: true,
    notify: new KernelNotifier(device, notifyWrites, takenIn),
  };
  const session = new Session({
    fs: fileSystem,
    device,
    log,
    protocol: { ...defaultProtocolOptions(keepsLocks), ...options.protocol },
    readers,
    info,
    interrupts: new Interrupts(clock, signalsOf),
    takenIn,
    busyPoll: busyPollFor(device, options.busyPollUs ?? BUSY_POLL_US),
  });
  const result = await runTool(clock, 'mount', mountArguments(options), MOUNT_TIMEOUT_MS, fd);
  if (result.code !== 0) {
    device.close();
    const problem = /permission|superuser|not permitted/i.test(result.stderr) ? 'no-permission' : 'failed';
    const reason = result.stderr.trim().replace(/\s*\n\s*/g, '; ') || 'mount(8) did not end';
    throw new MountError(problem, `cannot mount ${options.mountPoint}: ${reason}`);
  }
  session.start();
  const mount = new KernelMount(options.mountPoint, info, session, fileSystem, device, log, clock);
  try {
    await session.ready.promise;
  } catch (error) {
    await mount.unmount(0);
    throw error;
  }
  await mount.adopt(options.readAheadBytes ?? DEFAULT_READ_AHEAD_BYTES);
  return mount;
}

/** Where a thread of the pool reads, or the only processor is the one that the caller needs, none. */
function busyPollFor(device: FuseDevice, us: number): BusyPoll | undefined {
  return device.threadsPerRead === 0 && availableParallelism() > 1 ? new BusyPoll(us) : undefined;
}

/** A thread's signals; undefined when it is not visible here, or has ended. */
function signalsOf(pid: number): Signals | undefined {
  try {
    return parseSignals(fs.readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return undefined;
  }
}

function openDevice(): number {
  try {
    return fs.openSync(FUSE_DEVICE, fs.constants.O_RDWR);
  } catch (error) {
    const code = systemErrorCode(error) ?? '';
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MountError('no-permission', `${FUSE_DEVICE}: no permission: run as root`, { cause: error });
    }
    const hint = 'load the kernel module (modprobe fuse) and install fuse3 (apt-get install fuse3)';
    throw new MountError('no-device', `${FUSE_DEVICE} cannot be opened (${code}): ${hint}`, { cause: error });
  }
}

/** Threads that may be lost to blocked notifications. @throws MountError when the pool is too small to be safe */
function notifyThreads(device: FuseDevice, reading: number): number {
  const pool = Number(process.env.UV_THREADPOOL_SIZE ?? DEFAULT_THREAD_POOL_THREADS);
  const spare = pool - reading - 1;
  if (!(spare >= 1)) {
    device.close();
    const needed = `set UV_THREADPOOL_SIZE to at least ${reading + 2} (better ${RECOMMENDED_THREAD_POOL_THREADS})`;
    throw new MountError('failed', `too few threads to serve ${FUSE_DEVICE}: ${needed}`);
  }
  return Math.min(spare, MAX_NOTIFY_WRITES);
}

function mountArguments(options: KernelMountOptions): string[] {
  const flags = [
    'fd=3',
    `rootmode=${(S_IFDIR | (options.rootMode ?? 0)).toString(8)}`,
    `user_id=${process.geteuid?.() ?? 0}`,
    `group_id=${process.getegid?.() ?? 0}`,
    'default_permissions',
    // Only the mounting user would reach it otherwise, not even root's daemons; permissions still apply.
    'allow_other',
    options.readOnly ? 'ro' : 'rw',
    ...(options.kernelOptions ?? []),
  ];
  return [
    '-i',
    '-t',
    `fuse.${FUSE_SUBTYPE}`,
    '-o',
    flags.join(','),
    '--',
    options.fsName,
    options.mountPoint,
  ];
}

class KernelMount implements Mount {
  readonly ended: Promise<void>;
  private readonly done = deferred<void>();
  private sessionEnded = false;
  private unmounting: Promise<void> | undefined;
  private mounted: MountInfo | undefined;

  constructor(
    private readonly mountPoint: string,
    readonly info: BindingInfo,
    private readonly session: Session,
    private readonly fileSystem: FileSystem,
    private readonly device: FuseDevice,
    private readonly log: Logger,
    private readonly clock: Clock,
  ) {
    this.ended = this.done.promise;
    this.ended.catch(() => undefined);
    void session.ended.promise.then(() => this.finish());
  }

  /** Finds the connection's number and widens the kernel's read-ahead. */
  async adopt(readAheadBytes: number): Promise<void> {
    this.mounted = await findMount(this.mountPoint);
    if (!this.mounted) return;
    const { deviceMajor, deviceMinor } = this.mounted;
    const file = `/sys/class/bdi/${deviceMajor}:${deviceMinor}/read_ahead_kb`;
    try {
      await fs.promises.writeFile(file, String(Math.ceil(readAheadBytes / 1024)));
    } catch (error) {
      this.log.debug({ err: error }, 'read-ahead of the mount stays at its default');
    }
  }

  requests(): Record<string, number> {
    return this.session.requests();
  }

  unansweredWriteBytes(): number {
    return this.session.pendingWriteBytes;
  }

  unmount(graceMs: number): Promise<void> {
    this.unmounting ??= this.takeDown(graceMs);
    return this.unmounting;
  }

  private async takeDown(graceMs: number): Promise<void> {
    if (!this.sessionEnded) {
      const target = {
        mountPoint: this.mountPoint,
        connection: this.mounted?.deviceMinor,
        hasEnded: () => this.sessionEnded,
        ended: this.session.ended.promise,
        umount: umountTool(this.clock, this.mountPoint),
      };
      await unmountByForce(target, graceMs, this.clock, this.log);
      this.session.end();
      // A reader that could not be freed must not keep the caller.
      await Promise.race([this.session.ended.promise, delay(this.clock, ABORTED_WAIT_MS)]);
      void this.finish();
    }
    await this.ended;
  }

  /** The connection has ended: the file system flushes and the device is closed. */
  private async finish(): Promise<void> {
    if (this.sessionEnded) return;
    this.sessionEnded = true;
    try {
      await this.drain();
      await this.fileSystem.destroy?.();
      this.done.resolve();
    } catch (error) {
      this.log.error({ err: error }, 'the file system could not be closed cleanly');
      this.done.reject(error);
    } finally {
      this.device.close();
    }
  }

  /** Interrupted requests end by themselves; one that does not is left behind. */
  private async drain(): Promise<void> {
    const deadline = this.clock.now() + DRAIN_TIMEOUT_MS;
    while (this.session.pending > 0 && this.clock.now() < deadline)
      await delay(this.clock, DRAIN_INTERVAL_MS);
    if (this.session.pending > 0)
      this.log.warn({ pending: this.session.pending }, 'requests left at unmount');
  }
}
