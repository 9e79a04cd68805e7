import { assert } from '../../common/assert.js';
import { type ClusterMap, ReplicaState } from '../../proto/gen/cluster.js';
import type { InitCluster } from '../../proto/gen/meta.js';
import type { SessionTimes } from '../../proto/types.js';
import { ChunkMachine, type ChunkMachineHooks } from './chunkserver.js';
import { ClientMachine } from './client.js';
import type { Machine } from './machine.js';
import { MetaMachine, type MetaMachineHooks } from './metaserver.js';
import type { World } from './world.js';

export const CHUNK_SIZE_BYTES = 8192;
const CLUSTER_ID = '51b0c7e5-0000-4000-8000-000000000001';

export interface ClusterShape {
  metaservers: number;
  chunkservers: number;
  clients: number;
  replicas: number;
  minInSync: number;
  pgs: number;
}

export interface ClusterHooks extends MetaMachineHooks, ChunkMachineHooks {
  tamperMap?: (map: ClusterMap) => ClusterMap;
}

/** All machines of one run. */
export class Cluster {
  readonly world: World;
  readonly shape: ClusterShape;
  readonly metas: MetaMachine[];
  readonly chunks: ChunkMachine[];
  readonly clients: ClientMachine[] = [];
  readonly #hooks: ClusterHooks;

  constructor(world: World, shape: ClusterShape, sessionTimes: SessionTimes, hooks: ClusterHooks) {
    this.world = world;
    this.shape = shape;
    this.#hooks = hooks;
    const init: InitCluster = {
      clusterId: CLUSTER_ID,
      replicas: shape.replicas,
      minInSync: shape.minInSync,
      chunkSize: CHUNK_SIZE_BYTES,
      pgCount: shape.pgs,
      chunkservers: shape.chunkservers,
      rootUid: 0,
      rootGid: 0,
    };
    const ids = numbers(shape.metaservers);
    this.metas = ids.map((id) => new MetaMachine(world, id, { ids, init, sessionTimes }, hooks));
    this.chunks = numbers(shape.chunkservers).map(
      (id) => new ChunkMachine(world, id, CLUSTER_ID, this.metaAddresses, hooks),
    );
  }

  get metaAddresses(): string[] {
    return this.metas.map(({ id }) => MetaMachine.address(id));
  }

  get machines(): Machine[] {
    return [...this.metas, ...this.chunks];
  }

  start(): void {
    for (const machine of this.machines) machine.start();
    for (const id of numbers(this.shape.clients)) this.addClient(`k${id}`);
  }

  addClient(name: string): ClientMachine {
    const client = new ClientMachine(this.world, name, this.metaAddresses, this.#hooks.tamperMap);
    client.ready.catch((error: unknown) => this.world.fail(error as Error));
    this.clients.push(client);
    return client;
  }

  leader(): MetaMachine | undefined {
    return this.metas.find((meta) => meta.up && meta.serving);
  }

  /** The map as the leader has it. */
  map(): ClusterMap | undefined {
    return this.leader()?.state?.map();
  }

  /** All machines are up, every metaserver votes with its disk, and every replica of every group is in-sync. */
  whole(): boolean {
    return !this.machines.some((machine) => !machine.up) && this.metasWhole() && this.chunksWhole();
  }

  /** The disks that the metaservers have now are all voters, and nobody else is. */
  metasWhole(): boolean {
    const conf = this.leader()?.replica?.status().conf;
    if (!conf || conf.learners.length > 0 || conf.votersOutgoing.length > 0) return false;
    if (conf.voters.length !== this.metas.length) return false;
    return this.metas.every(({ up, member }) => up && member !== undefined && conf.voters.includes(member));
  }

  /** Every group has all its replicas in-sync, on the disks that the chunkservers have now. */
  chunksWhole(): boolean {
    const map = this.map();
    if (!map || map.pgs.length === 0) return false;
    const present = this.chunks.every(({ id, store }) => {
      const known = map.servers.find((server) => server.id === id);
      return store !== undefined && known?.diskUuid === store.diskUuid;
    });
    if (!present) return false;
    return map.pgs.every(({ replicas }) =>
      replicas.every(({ state }) => state === ReplicaState.REPLICA_IN_SYNC),
    );
  }

  /** For a failure's text: the groups as the map and the chunkservers see them. */
  describe(): string {
    const groups = (this.map()?.pgs ?? []).map(({ id, epoch, replicas }) => {
      const states = replicas.map(({ server, state }) => `${server}:${ReplicaState[state].slice(8)}`);
      return `group ${id} epoch ${epoch} ${states.join(' ')}`;
    });
    const progress = this.chunks.map(({ name, service, store }) => {
      const usage = store ? `free ${store.usage().freeBytes}` : 'down';
      return `${name} ${usage} ${JSON.stringify(service?.host.progress() ?? [])}`;
    });
    return [`leader ${this.leader()?.name ?? 'none'}`, ...groups, ...progress].join('\n  ');
  }

  chunkserver(id: number): ChunkMachine {
    const machine = this.chunks[id - 1];
    assert(machine, `chunkserver ${id} exists`);
    return machine;
  }
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}
