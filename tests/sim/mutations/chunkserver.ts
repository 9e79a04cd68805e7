import type { PgHost } from '../../../chunkserver/service/pg-host.js';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { toHoldfastError } from '../../../proto/errors.js';
import { FRAME_FLAG_END, FrameType } from '../../../proto/frame-header.js';
import { type ClusterMap, ReplicaState } from '../../../proto/gen/cluster.js';
import { patched } from '../patched.js';
import { isolateOften, type Mutation } from './mutation.js';
import { forgeReply, frameTap } from './wire.js';

const DAMAGED_BYTE = 0x5a;
const FOR_EVER_MS = 1e9;
const WILD_CLOCK_DEVIATION = 0.6;
const REPLICATE = new Set([
  FrameType.REPLICATE_WRITE,
  FrameType.REPLICATE_TRUNCATE,
  FrameType.REPLICATE_DELETE,
]);

/** Reads are answered from the store, whatever the group's state. */
function readAlways(host: PgHost, store: ChunkStore): void {
  const request = host.request.bind(host);
  host.request = (pg, call) => {
    if (call.kind !== 'read') {
      request(pg, call);
      return;
    }
    const { ino, chunk, offset, length } = call;
    store.read(pg, { ino, chunk }, offset, length).then(
      ({ data }) => call.answer(undefined, { payload: data }),
      () => request(pg, call),
    );
  };
}

/** Recovering replicas look like primaries. */
function recoveringFirst(map: ClusterMap): ClusterMap {
  const pgs = map.pgs.map((pg) => {
    const recovering = pg.replicas.filter(({ state }) => state === ReplicaState.REPLICA_RECOVERING);
    const shown = recovering.map(({ server }) => ({ server, state: ReplicaState.REPLICA_IN_SYNC }));
    return { ...pg, replicas: [...shown, ...pg.replicas] };
  });
  return { ...map, pgs };
}

/** Bugs in replication, recovery and stores. */
export const CHUNKSERVER_MUTATIONS: readonly Mutation[] = [
  {
    name: 'chunk-skips-fsync',
    text: 'chunkservers confirm a sync that they have not made',
    seeds: 20,
    prepare: ({ chunks }) => {
      for (const chunk of chunks) chunk.mood.lies = true;
    },
  },
  {
    name: 'hides-losses',
    text: 'a sync says that nothing is gone, whatever all replicas have lost',
    seeds: 120,
    favourite: 'power cut of all chunkservers',
    tap: () =>
      frameTap((frame) => {
        const { header } = frame;
        if (header.type !== FrameType.SYNC || !header.isReply) return frame;
        return { ...frame, header: { ...header, aux: 0 } };
      }),
  },
  {
    name: 'acks-before-replicas',
    text: 'a primary acknowledges what its replicas do not have yet',
    seeds: 60,
    tap: () =>
      frameTap((frame, from) => {
        const { header } = frame;
        if (!REPLICATE.has(header.type)) return frame;
        if (header.isReply) return undefined;
        forgeReply(frame, from, {});
        return frame;
      }),
  },
  {
    name: 'serves-after-lease',
    text: 'a chunkserver that lost its lease goes on serving',
    aloneMs: 15_000,
    seeds: 20,
    prepare: (cluster) =>
      isolateOften(cluster, () => cluster.chunks[cluster.world.prng.int(cluster.chunks.length)]),
    hooks: () => ({
      onService: ({ host }) => {
        const setLease = host.setLease.bind(host);
        const setRegistered = host.setRegistered.bind(host);
        host.setLease = (until) => setLease(until + FOR_EVER_MS);
        host.setRegistered = (registered) => {
          if (registered) setRegistered(true);
        };
      },
    }),
  },
  {
    name: 'clocks-beyond-bound',
    text: 'clocks run at rates that differ by more than leases allow for',
    aloneMs: 15_000,
    seeds: 20,
    prepare: (cluster) => {
      cluster.world.clockRateDeviation = WILD_CLOCK_DEVIATION;
      isolateOften(cluster, () => cluster.chunks[cluster.world.prng.int(cluster.chunks.length)]);
    },
  },
  {
    name: 'skips-peering',
    text: 'a new primary takes over without making the replicas identical',
    seeds: 120,
    tap: () =>
      frameTap((frame) => {
        const { header } = frame;
        if (header.type !== FrameType.RESYNC || header.isReply) return frame;
        return { ...frame, header: { ...header, flags: header.flags | FRAME_FLAG_END } };
      }),
  },
  {
    name: 'ignores-maps',
    text: 'a chunkserver keeps to the first complete map that it was given',
    seeds: 20,
    hooks: () => ({
      onService: ({ host }) => {
        const setMap = host.setMap.bind(host);
        host.setMap = (map) => {
          if (!host.map?.pgs.length) setMap(map);
        };
      },
    }),
  },
  {
    name: 'reads-from-recovering',
    text: 'a replica that is being refilled answers reads',
    seeds: 20,
    hooks: () => ({
      tamperMap: recoveringFirst,
      onService: ({ host }, store) => readAlways(host, store),
    }),
  },
  {
    name: 'keeps-divergence',
    text: 'a returning replica keeps its own content of chunks that others have changed meanwhile',
    seeds: 20,
    hooks: () => ({
      wrapStore: (store) =>
        patched(store, {
          install: async (pg, key, content) => {
            const own = await store.readChunk(pg, key);
            const kept = content && own ? { ...own, version: content.version } : content;
            await store.install(pg, key, kept);
          },
        }),
    }),
  },
  {
    name: 'skips-checksums',
    text: 'a chunkserver does not see that data has changed on its disk',
    seeds: 100,
    favourite: 'flipped bits in a segment',
    hooks: () => ({
      wrapStore: (store) =>
        patched(store, {
          read: (pg, key, offset, length) =>
            store.read(pg, key, offset, length).catch((error: unknown) => {
              if (toHoldfastError(error).errorName !== 'CORRUPT') throw error;
              const { version } = store.chunkInfo(pg, key) ?? {};
              return { version, data: [Buffer.alloc(length, DAMAGED_BYTE)], length };
            }),
        }),
    }),
  },
  {
    name: 'ignores-truncates',
    text: 'a chunkserver notes the number of a truncate, but keeps the data',
    seeds: 60,
    hooks: () => ({
      wrapStore: (store) =>
        patched(store, {
          truncate: (pg, ino, _from, chunkSize, truncateSeq, version) =>
            store.truncate(pg, ino, Number.MAX_SAFE_INTEGER, chunkSize, truncateSeq, version),
        }),
    }),
  },
];
