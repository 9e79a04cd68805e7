import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Prng } from '../../common/prng.js';
import type { MetaDialer } from './dialer.js';

export interface SessionOptions {
  /** host:port of metaservers; those that the leader names are added. */
  metaservers: readonly string[];
  /** Empty: any cluster. */
  clusterId: string;
  hostname: string;
  mountPoint: string;
  /** What only one running mount at a time has; absent: unknown. */
  place?: string;
  /** Callers get ETIMEDOUT after so long; absent: they wait until the cluster answers. */
  softTimeoutMs?: number;
  /** Leases that are announced to a new leader in one message; absent: LEASES_PER_ANNOUNCEMENT_MAX, the most there may be. */
  leasesPerAnnouncement?: number;
}

export interface SessionDeps {
  clock: Clock;
  log: Logger;
  prng: Prng;
  dial: MetaDialer;
}
