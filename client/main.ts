import { readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { bootId } from '../common/boot-id.js';
import { type Clock, delay } from '../common/clock.js';
import type { Logger } from '../common/logger.js';
import type { Prng } from '../common/prng.js';
import type { Tracer } from '../common/trace.js';
import { HoldfastError } from '../proto/errors.js';
import type { Attr } from '../proto/gen/meta.js';
import { PERMISSION_BITS, PROTOCOL_VERSION, ROOT_INO, SESSION_TIMEOUT_MS } from '../proto/types.js';
import { ChunkConnections, frameDialer } from './data/chunk-connections.js';
import { ChunkIo } from './data/chunk-io.js';
import { ClusterView } from './data/cluster-view.js';
import { type DataLimits, dataLimits } from './data/limits.js';
import type { BindingInfo, Mount } from './fuse/binding.js';
import { type BindingChoice, mountFileSystem } from './fuse/choose.js';
import { FUSE_NATIVE_LIMITS } from './fuse/fuse-native.js';
import { attrOf } from './meta/api.js';
import { streamDialer } from './meta/dialer.js';
import { MetaSession } from './meta/session.js';
import { tracedEnvelope, tracedFileSystem, tracedFrameDialer, tracedMetaDialer } from './tracing.js';
import { HoldfastFs, type Unwritten } from './vfs/vfs.js';

/** How long the first connection may take. */
export const CONNECT_TIMEOUT_MS = 15_000;
/** Once connected, the first call is answered within this time: nobody is waited for longer than a session lasts. */
export const FIRST_ANSWER_TIMEOUT_MS = SESSION_TIMEOUT_MS + 15_000;
/** How long an unmount waits for programs, then for dirty data of which no server takes any, then for the end of the session. */
export const UNMOUNT_GRACE_MS = 2_000;
export const UNMOUNT_STALL_MS = 10_000;
export const SESSION_CLOSE_TIMEOUT_MS = 1_000;

export interface RunMountOptions {
  /** An empty directory. */
  mountPoint: string;
  /** host:port of metaservers; one that answers is enough, the others are learnt from it. */
  metaservers: readonly string[];
  /** Refuse any other cluster; absent: take the one that answers. */
  clusterId?: string;
  binding: BindingChoice;
  readOnly?: boolean;
  /** Reads set no access time; otherwise as with relatime (mount(8)). */
  noAtime?: boolean;
  /** Further options of mount(8) that the kernel applies: nosuid, nodev, noexec and the like. */
  kernelOptions?: readonly string[];
  /** How long the next request of the kernel is polled for behind an answer, us; absent: the binding's default, 0: not at all. */
  busyPollUs?: number;
  /** Other users may use the mount; default true. */
  allowOther?: boolean;
  /** Calls fail with ETIMEDOUT after so long instead of waiting for the cluster. */
  soft?: { timeoMs: number };
  /** Shown as the source in /proc/mounts. */
  fsName: string;
  /** Memory and parallelism; what is absent has its default. */
  limits?: Partial<DataLimits>;
  connectTimeoutMs?: number;
}

export interface RunMountDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
  /** Notes where the time of each request goes; absent: nothing is noted. */
  tracer?: Tracer;
}

/** Requests sent so far, repetitions included; what keeps the session alive does not count. */
export interface MountStatistics {
  metaReads: number;
  metaMutations: number;
  /** Several changes each. */
  metaBatches: number;
  chunkRequests: number;
  /** Held now. */
  leases: number;
  /** Of the kernel to this process, by name; empty where the binding does not see them. */
  fuse: Record<string, number>;
}

export interface RunningMount {
  readonly clusterId: string;
  readonly info: BindingInfo;
  /** What this binding cannot do, one line each. */
  readonly limits: string[];
  /** What has been asked of servers so far. */
  statistics(): MountStatistics;
  /** What programs were told is done and no server has yet; when the mount has ended: what was given up. */
  unwritten(): Unwritten;
  /** Settles when the mount has ended, whoever ended it, and everything is written back. */
  readonly ended: Promise<void>;
  /** Writes back, unmounts, ends the session. Idempotent. */
  unmount(): Promise<void>;
}

/**
 * Connects to a cluster and mounts it.
 * @throws HoldfastError ETIMEDOUT (no metaserver answered), WRONG_CLUSTER, VERSION, EINVAL (limits);
 *   MountError (mount point, permission, no FUSE)
 */
export async function runMount(options: RunMountOptions, deps: RunMountDeps): Promise<RunningMount> {
  const { clock, log, prng, tracer } = deps;
  const limits = dataLimits(options.limits);
  const view = new ClusterView(clock);
  const session = newSession(options, deps);
  session.onMap((map) => view.update(map));
  await session.start(options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
  const root = await firstAnswer(session, clock);
  const connections = chunkConnections(session, deps);
  const softTimeoutMs = options.soft?.timeoMs;
  const ofSession = (): number => session.id;
  const chunks = new ChunkIo({ clock, log, prng, view, connections, session: ofSession, softTimeoutMs });
  const { readOnly = false, noAtime = false } = options;
  const fs = new HoldfastFs({
    ...{ meta: session, chunks, clock, log, limits, readOnly, noAtime },
    destroyStallMs: UNMOUNT_STALL_MS,
  });
  const { mountPoint, fsName, binding, allowOther = true, kernelOptions = [], busyPollUs } = options;
  const mountOptions = { mountPoint, fsName, allowOther, readOnly, binding, kernelOptions, busyPollUs };
  const served = tracer ? tracedFileSystem(fs, tracer) : fs;
  let mount: Mount;
  try {
    mount = await mountFileSystem(served, { ...mountOptions, rootMode: rootMode(root) }, log, clock);
  } catch (error) {
    await session.close(SESSION_CLOSE_TIMEOUT_MS);
    throw error;
  }
  return runningMount({ session, connections, chunks, fs, mount, clock });
}

/** The session with the metaservers, not connected yet. */
function newSession(options: RunMountOptions, { clock, log, prng, tracer }: RunMountDeps): MetaSession {
  const dial = tracer
    ? tracedMetaDialer(streamDialer(clock, undefined, tracedEnvelope(tracer)), tracer)
    : streamDialer(clock);
  return new MetaSession(
    {
      metaservers: options.metaservers,
      clusterId: options.clusterId ?? '',
      hostname: hostname(),
      mountPoint: options.mountPoint,
      place: mountPlace(options.mountPoint),
      softTimeoutMs: options.soft?.timeoMs,
    },
    { clock, log, prng, dial },
  );
}

/** Connections to chunkservers, in the name of the session. */
function chunkConnections(session: MetaSession, { clock, log, tracer }: RunMountDeps): ChunkConnections {
  const hello = () => ({
    protocol: PROTOCOL_VERSION,
    clusterId: session.clusterId,
    role: 'client' as const,
    id: session.id,
  });
  const dial = frameDialer(clock, log, hello);
  return new ChunkConnections(clock, log, tracer ? tracedFrameDialer(dial, tracer) : dial, () => session.id);
}

/** What a mount consists of, put together. */
interface MountParts {
  session: MetaSession;
  connections: ChunkConnections;
  chunks: ChunkIo;
  fs: HoldfastFs;
  mount: Mount;
  clock: Clock;
}

function runningMount({ session, connections, chunks, fs, mount, clock }: MountParts): RunningMount {
  const cleanUp = async (): Promise<void> => {
    await fs.destroy();
    await session.close(SESSION_CLOSE_TIMEOUT_MS, fs.gaveUp);
    connections.close('unmounted');
  };
  const ended = mount.ended.then(cleanUp, cleanUp);
  return {
    clusterId: session.clusterId,
    info: mount.info,
    limits: mount.info.kind === 'fuse-native' ? [...FUSE_NATIVE_LIMITS] : [],
    statistics: () => ({
      metaReads: session.requests.read,
      metaMutations: session.requests.mutation,
      metaBatches: session.requests.batch,
      chunkRequests: chunks.requests,
      leases: session.leases.size,
      fuse: mount.requests?.() ?? {},
    }),
    unwritten: () => {
      const { bytes, changes } = fs.unwritten;
      return { bytes: bytes + (mount.unansweredWriteBytes?.() ?? 0), changes };
    },
    ended,
    async unmount() {
      // What is dirty goes first: it needs no kernel, and the kernel's part is then short.
      await Promise.race([fs.destroy(), delay(clock, UNMOUNT_STALL_MS)]);
      await mount.unmount(UNMOUNT_GRACE_MS);
      await ended;
    },
  };
}

/**
 * Waits until the cluster answers calls: a new leader may first have to wait for clients that died, also for a former mount
 * at this very place. @returns the root. @throws HoldfastError ETIMEDOUT when that takes longer than any client is waited for
 */
async function firstAnswer(session: MetaSession, clock: Clock): Promise<Attr> {
  const controller = new AbortController();
  const timer = clock.after(FIRST_ANSWER_TIMEOUT_MS, () => controller.abort());
  try {
    return attrOf(await session.read({ $case: 'getAttr', value: { ino: ROOT_INO } }, controller.signal));
  } catch (error) {
    await session.close(SESSION_CLOSE_TIMEOUT_MS);
    if (!controller.signal.aborted) throw error;
    throw new HoldfastError(
      'ETIMEDOUT',
      `${session.leader || 'the metaserver'} answers no call: is a chunkserver cut off?`,
    );
  } finally {
    timer.cancel();
  }
}

/** The kernel is told a mode alone, and takes root for the owner. */
function rootMode({ mode, uid, gid }: Attr): number {
  return uid === 0 && gid === 0 ? mode & PERMISSION_BITS : 0;
}

/** Boot, mount namespace and directory: two mounts that run at a time differ in one of them. Empty where /proc is not there. */
function mountPlace(mountPoint: string): string {
  try {
    return [bootId(), readlinkSync('/proc/self/ns/mnt'), mountPoint].join(' ');
  } catch {
    return '';
  }
}
