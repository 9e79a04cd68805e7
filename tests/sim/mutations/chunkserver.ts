import type { PgHost } from '../../../chunkserver/service/pg-host.js';
import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { toHoldfastError } from '../../../proto/errors.js';
import { FRAME_FLAG_END, FrameType } from '../../../proto/frame-header.js';
import { type ClusterMap, type Fence, MetaToChunkServer, ReplicaState } from '../../../proto/gen/cluster.js';
import type { Cluster } from '../cluster.js';
import { patched } from '../patched.js';
import { SHORT_SESSIONS } from '../plan.js';
import { cut, isolateOften, type Mutation, repeatedly } from './mutation.js';
import { forgeReply, frameTap, messageTap } from './wire.js';

const DAMAGED_BYTE = 0x5a;
const FOR_EVER_MS = 1e9;
/** Longer than a primary needs to be dropped, to come back, and to lead again. */
const HELD_UP_MS = 6_000;
/** Beyond a primary's lease. */
const CUT_OFF_MS = 2_200;
/** Beyond the time-out of short sessions and their end. */
const OUTLIVED_MS = 5_500;
const CLUSTER_PATH = '/holdfast.ClusterService/Heartbeat';
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

/** Requests look as if their senders had this server's map. */
function ignoreEpochs(host: PgHost): void {
  const request = host.request.bind(host);
  const call = host.call.bind(host);
  const present = (pg: number): number => host.map?.pgs.find(({ id }) => id === pg)?.epoch ?? 0;
  host.request = (pg, asked) => request(pg, { ...asked, epoch: present(pg) });
  host.call = (pg, asked) => call(pg, { ...asked, header: { ...asked.header, epoch: present(pg) } });
}

/** Writes look as if their senders knew of every truncate. */
function ignoreCuts(host: PgHost, store: ChunkStore): void {
  const request = host.request.bind(host);
  host.request = (pg, call) => {
    const truncateSeq = Math.max(call.truncateSeq, store.truncateSeq(pg, call.ino));
    request(pg, call.kind === 'write' ? { ...call, truncateSeq } : call);
  };
}

/** What a client sends to a primary arrives when that has lost its groups and got them back. */
function holdRequestsUp(cluster: Cluster): void {
  const { world, clients, chunks, metas } = cluster;
  repeatedly(cluster, HELD_UP_MS, () => {
    const server = chunks[world.prng.int(chunks.length)]?.name as string;
    const client = clients[world.prng.int(clients.length)]?.name as string;
    world.time.after(HELD_UP_MS, world.network.cut(client, server));
    for (const { name } of metas) cut(cluster, server, name, CUT_OFF_MS);
  });
}

/** Clients do not hear that their sessions end, and wake up or go on as if nothing had been. */
function outliveSessions(cluster: Cluster): void {
  const { world, clients } = cluster;
  repeatedly(cluster, OUTLIVED_MS, () => {
    const client = clients[world.prng.int(clients.length)];
    if (!client) return;
    client.process.pause();
    world.time.after(OUTLIVED_MS, () => client.process.resume());
  });
}

const SHUTS_OUT_NOBODY = { upto: 0, live: [] };

function opened(fence: Fence): Fence {
  return { ...fence, ...SHUTS_OUT_NOBODY };
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
    first: 71,
    seeds: 80,
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
    first: 250,
    seeds: 100,
    favourite: 'kill of a chunkserver and a client',
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
    name: 'ignores-epochs',
    text: 'a chunkserver takes requests of other epochs for those of the present one',
    first: 6,
    seeds: 20,
    aloneMs: 20_000,
    prepare: holdRequestsUp,
    hooks: () => ({ onService: ({ host }) => ignoreEpochs(host) }),
  },
  {
    name: 'ignores-fences',
    text: 'a chunkserver goes on serving clients whose sessions are over',
    first: 3,
    seeds: 20,
    aloneMs: 20_000,
    sessionTimes: SHORT_SESSIONS,
    prepare: outliveSessions,
    tap: () =>
      messageTap(CLUSTER_PATH, false, MetaToChunkServer, (envelope) => {
        const { body } = envelope;
        if (body?.$case === 'fence') body.value = opened(body.value);
        else if (body?.$case === 'registered' && body.value.fence)
          body.value.fence = opened(body.value.fence);
        return [envelope];
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
    first: 6,
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
    name: 'ignores-cuts',
    text: 'a primary takes writes that a truncate has overtaken',
    seeds: 100,
    shared: true,
    hooks: () => ({ onService: ({ host }, store) => ignoreCuts(host, store) }),
  },
  {
    name: 'ignores-truncates',
    text: 'a chunkserver notes the number of a truncate, but keeps the data',
    first: 6,
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
