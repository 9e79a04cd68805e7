import type { ChunkServerStatus } from '../../proto/gen/admin.js';
import {
  type ClusterMap,
  type Heartbeat,
  type PgStatus,
  ReplicaState,
  type ScrubStatus,
} from '../../proto/gen/cluster.js';
import { primaryOf } from './pg-change.js';
import { type DiskReport, reservedElsewhere, shareDisks } from './shared-disks.js';

/** PGs of which one heartbeat may report progress: far above what a server holds. */
export const PG_REPORTS_MAX = 65_536;

interface Report {
  capacityBytes: number;
  usedBytes: number;
  freeBytes: number;
  pgs: PgStatus[];
  recoveryDoneBytes: number;
  recoveryBytesPerSecond: number;
  /** Of the map that it acts by. */
  mapVersion: number;
  scrub: ScrubStatus | undefined;
  device: string;
  deviceFreeBytes: number;
  reservedBytes: number;
}

/** Bytes as a user sees them: already divided by the replication. */
export interface UserCapacity {
  totalBytes: number;
  freeBytes: number;
  /** What can surely be written: the fullest server sets the limit, for data is spread evenly over the PGs. */
  availBytes: number;
}

/** What the chunkservers last said of themselves; the leader's memory only. */
export class ChunkServerRegistry {
  readonly #reports = new Map<number, Report>();

  clear(): void {
    this.#reports.clear();
  }

  heartbeat(server: number, heartbeat: Heartbeat): void {
    const { capacityBytes, usedBytes, freeBytes, pgs } = heartbeat;
    const { recoveryDoneBytes = 0, recoveryBytesPerSecond = 0, mapVersion = 0 } = heartbeat;
    this.#reports.set(server, {
      ...{ capacityBytes, usedBytes, freeBytes, pgs: pgs.slice(0, PG_REPORTS_MAX) },
      ...{ recoveryDoneBytes, recoveryBytesPerSecond, mapVersion },
      scrub: heartbeat.scrub,
      device: heartbeat.device ?? '',
      deviceFreeBytes: heartbeat.deviceFreeBytes ?? 0,
      reservedBytes: heartbeat.reservedBytes ?? 0,
    });
  }

  /** Whether every server that is alive in the map has reported, and there is one. */
  complete(map: ClusterMap): boolean {
    const alive = map.servers.filter((server) => server.alive);
    return alive.length > 0 && alive.every((server) => this.#reports.has(server.id));
  }

  /** The version of the map that a server acts by; 0: it has not said. */
  mapVersion(server: number): number {
    return this.#reports.get(server)?.mapVersion ?? 0;
  }

  /** Of all servers of the map that have reported; a server that is down counts as it last reported. */
  capacity(map: ClusterMap): UserCapacity {
    const pgsOf = countPgs(map);
    const copies = Math.max(1, map.replicas);
    const freeOf = this.#free();
    let total = 0;
    let free = 0;
    let avail = Number.POSITIVE_INFINITY;
    for (const { id, alive } of map.servers) {
      const report = this.#reports.get(id);
      if (!report) continue;
      const freeHere = freeOf.get(id) ?? 0;
      total += report.capacityBytes - report.freeBytes + freeHere;
      free += freeHere;
      const held = pgsOf.get(id)?.held ?? 0;
      if (alive && held > 0) avail = Math.min(avail, (freeHere * map.pgs.length) / held);
    }
    const freeBytes = Math.floor(free / copies);
    return {
      totalBytes: Math.floor(total / copies),
      freeBytes,
      availBytes: Math.floor(Math.min(avail, freeBytes)),
    };
  }

  /** Of each server, shared file systems divided. */
  #free(): Map<number, number> {
    return shareDisks(this.#disks());
  }

  /** Bytes that are promised to writes to other servers on the file system of this one. */
  reservedElsewhere(server: number): number {
    return reservedElsewhere(this.#disks(), server);
  }

  #disks(): DiskReport[] {
    return [...this.#reports].map(([id, { freeBytes, device, deviceFreeBytes, reservedBytes }]) => ({
      ...{ id, freeBytes, device, deviceFreeBytes, reservedBytes },
    }));
  }

  statuses(map: ClusterMap): ChunkServerStatus[] {
    const pgsOf = countPgs(map);
    return map.servers.map(({ id, host, port, alive, draining }) => {
      const report = this.#reports.get(id);
      // What a dead server said of its progress is over.
      const recovery = alive ? report : undefined;
      const pgs = pgsOf.get(id);
      return {
        id,
        address: `${host}:${port}`,
        alive,
        capacityBytes: report?.capacityBytes ?? 0,
        usedBytes: report?.usedBytes ?? 0,
        freeBytes: report?.freeBytes ?? 0,
        pgsInSync: pgs?.inSync ?? 0,
        pgsRecovering: pgs?.recovering ?? 0,
        pgsPrimary: pgs?.primary ?? 0,
        recoveryLeftBytes: recovery?.pgs.reduce((sum, pg) => sum + pg.recoveryLeftBytes, 0) ?? 0,
        draining: draining ?? false,
        recoveryDoneBytes: recovery?.recoveryDoneBytes ?? 0,
        recoveryBytesPerSecond: recovery?.recoveryBytesPerSecond ?? 0,
        scrub: report?.scrub,
      };
    });
  }
}

interface PgCounts {
  held: number;
  inSync: number;
  recovering: number;
  primary: number;
}

function countPgs(map: ClusterMap): Map<number, PgCounts> {
  const counts = new Map<number, PgCounts>();
  for (const pg of map.pgs) {
    const primary = primaryOf(pg);
    for (const { server, state } of pg.replicas) {
      const count = counts.get(server) ?? { held: 0, inSync: 0, recovering: 0, primary: 0 };
      count.held++;
      if (state === ReplicaState.REPLICA_IN_SYNC) count.inSync++;
      if (state === ReplicaState.REPLICA_RECOVERING) count.recovering++;
      if (server === primary) count.primary++;
      counts.set(server, count);
    }
  }
  return counts;
}
