import { statSync } from 'node:fs';
import { bootId } from '../common/boot-id.js';
import type { Clock } from '../common/clock.js';
import { deferred } from '../common/deferred.js';
import { type Disk, nodeDisk } from '../common/disk.js';
import type { Logger } from '../common/logger.js';
import type { Prng } from '../common/prng.js';
import { DEFAULT_SEGMENT_BYTES } from '../common/segment-log.js';
import type { Tracer } from '../common/trace.js';
import { tracedDisk } from '../common/traced-disk.js';
import { WatchedDisk } from '../common/watched-disk.js';
import { ChunkService } from './service/service.js';
import { openChunkStore } from './store/open.js';

export interface ChunkserverOptions {
  /** Number of this server, unique among the chunkservers; 1.. */
  id: number;
  /** Where it listens, and how clients and other servers reach it. */
  host: string;
  port: number;
  /** For this server alone; made when missing. */
  dataDir: string;
  /** Default: the one that the first metaserver names. */
  clusterId?: string;
  /** host:port of all metaservers. */
  metaservers: string[];
  /** Failure domain; default: the server's own. */
  domain?: string;
  /** Default: what the disk has. */
  capacityLimitBytes?: number;
  /** Cap of what recovery reads from other servers, MB/s. */
  recoveryMbps: number;
  /** From one scrub to the next, milliseconds; 0: never. Default: a week. */
  scrubIntervalMs?: number;
  /** What a scrub reads, MB/s. Default: 20. */
  scrubMbps?: number;
  /** A disk that does not answer for so long is given up. Default: DISK_STALL_MS. */
  diskStallMs?: number;
}

export interface ChunkserverDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
  /** Default: the file system of this machine. */
  disk?: Disk;
  /** Notes where the time of each request goes; absent: nothing is noted. */
  tracer?: Tracer;
}

export interface RunningChunkserver {
  port: number;
  /** Leaves the cluster, closes all connections and the store. Idempotent. */
  close(): Promise<void>;
  /** Resolves when the server cannot go on (its disk failed, the cluster refuses it); it should be closed then. */
  fatal: Promise<Error>;
}

const DEFAULT_SCRUB_INTERVAL_MS = 7 * 24 * 3_600_000;
const DEFAULT_SCRUB_MBPS = 20;
const BYTES_PER_MB = 1_000_000;

/** Tells file systems apart, within a machine and between machines. */
function deviceOf(dir: string): string {
  return `${bootId()}/${statSync(dir).dev}`;
}

/** Segments are a part of the disk, or of the limit: the store keeps some of them free. */
const SEGMENTS_PER_LIMIT = 32;
const SEGMENT_MIN_BYTES = 8 * 1024 * 1024;

async function limits(disk: Disk, dir: string, capacityLimitBytes: number | undefined) {
  await disk.mkdir(dir);
  const { totalBytes } = await disk.space(dir);
  const share = Math.floor(Math.min(totalBytes, capacityLimitBytes ?? totalBytes) / SEGMENTS_PER_LIMIT);
  const segmentBytes = Math.max(SEGMENT_MIN_BYTES, Math.min(DEFAULT_SEGMENT_BYTES, share));
  return { capacityLimitBytes, segmentBytes };
}

/** A disk that has not answered for so long is given up: others hold the same data. */
export const DISK_STALL_MS = 15_000;
const DISK_CHECK_MS = 500;

/**
 * Runs one chunkserver: the store, its placement groups, and the stream to the metaservers. It serves as soon as a
 * metaserver has registered it; until then it goes on trying.
 * @throws Error with one line for the operator: the port is in use, the data directory is locked, belongs to another
 *   cluster, has another format, or is damaged
 */
export async function runChunkserver(
  options: ChunkserverOptions,
  deps: ChunkserverDeps,
): Promise<RunningChunkserver> {
  const { id, host, port, dataDir, clusterId = '', metaservers, domain, recoveryMbps } = options;
  const { clock, log, prng, tracer } = deps;
  const { diskStallMs = DISK_STALL_MS } = options;
  if (metaservers.length === 0) throw new Error('no metaserver is named');
  const fatal = deferred<Error>();
  const failed = (error: unknown): void => {
    const cause = error instanceof Error ? error : new Error(String(error));
    service?.fail(cause);
    fatal.resolve(cause);
  };
  let service: ChunkService | undefined;
  const plainDisk = deps.disk ?? nodeDisk;
  const disk = new WatchedDisk(tracer ? tracedDisk(plainDisk, tracer, 'segments') : plainDisk, clock);
  const store = await openChunkStore({
    dir: dataDir,
    clock,
    logger: log,
    onFailure: failed,
    disk,
    ...(await limits(disk, dataDir, options.capacityLimitBytes)),
  });
  const watch = clock.every(
    DISK_CHECK_MS,
    () => {
      const stalledMs = disk.stalledMs(DISK_CHECK_MS);
      if (stalledMs > diskStallMs)
        failed(new Error(`the disk of ${dataDir} has not answered for ${diskStallMs} ms`));
    },
    { weak: true },
  );
  try {
    if (clusterId && store.clusterId && store.clusterId !== clusterId) {
      throw new Error(`${dataDir} belongs to the cluster ${store.clusterId}, not to ${clusterId}`);
    }
    const settings = {
      id,
      host,
      port,
      clusterId,
      metaservers,
      recoveryMbps,
      device: deviceOf(dataDir),
      scrub: {
        intervalMs: options.scrubIntervalMs ?? DEFAULT_SCRUB_INTERVAL_MS,
        bytesPerSecond: (options.scrubMbps ?? DEFAULT_SCRUB_MBPS) * BYTES_PER_MB,
      },
      domain: domain ?? `server-${id}`,
    };
    const schedule = (fn: () => void) => void setImmediate(fn);
    const opened = new ChunkService(settings, { store, clock, log, prng, tracer, schedule });
    service = opened;
    const bound = await opened.start();
    void opened.fatal.then((error) => fatal.resolve(error));
    log.info({ host, port: bound, dataDir, diskUuid: store.diskUuid }, 'chunkserver started');
    let closing: Promise<void> | undefined;
    const close = (): Promise<void> => {
      watch.cancel();
      opened.stop();
      closing ??= store.close();
      return closing;
    };
    return { port: bound, close, fatal: fatal.promise };
  } catch (error) {
    watch.cancel();
    service?.stop();
    await store.close();
    throw error;
  }
}
