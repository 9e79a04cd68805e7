import { HoldfastError } from '../../proto/errors.js';
import type { ChunkServerInfo, ClusterMap, RegisterChunkServer } from '../../proto/gen/cluster.js';
import { PROTOCOL_VERSION } from '../../proto/types.js';

/** Chunkserver ids are 1..this. */
export const CHUNK_SERVER_ID_MAX = 65_535;
const PORT_MAX = 65_535;
const TEXT_MAX_CHARS = 255;

/**
 * What the map will say of a server that registers.
 * @throws HoldfastError VERSION or PROTOCOL, with a text for the operator
 */
export function checkRequest(request: RegisterChunkServer): ChunkServerInfo {
  const { protocol, serverId, diskUuid, host, port, domain, boot } = request;
  if (protocol !== PROTOCOL_VERSION) {
    const text = `chunkserver ${serverId} speaks ${protocol}, this metaserver ${PROTOCOL_VERSION}`;
    throw new HoldfastError('VERSION', text);
  }
  if (serverId < 1 || serverId > CHUNK_SERVER_ID_MAX)
    throw new HoldfastError('PROTOCOL', `server id ${serverId}`);
  if (port < 1 || port > PORT_MAX) throw new HoldfastError('PROTOCOL', `port ${port}`);
  for (const text of [diskUuid, host]) {
    if (text === '' || text.length > TEXT_MAX_CHARS)
      throw new HoldfastError('PROTOCOL', 'bad disk uuid or host');
  }
  if (domain.length > TEXT_MAX_CHARS) throw new HoldfastError('PROTOCOL', 'failure domain is too long');
  if ((boot?.length ?? 0) > TEXT_MAX_CHARS) throw new HoldfastError('PROTOCOL', 'boot is too long');
  const info = { id: serverId, diskUuid, host, port, alive: true, domain };
  return boot === undefined ? info : { ...info, boot };
}

/** @throws HoldfastError WRONG_CLUSTER; a newly formatted disk names no cluster and is welcome in any */
export function checkCluster(request: RegisterChunkServer, clusterId: string | undefined): void {
  if (clusterId === undefined) throw new HoldfastError('UNAVAILABLE', 'the cluster is not initialised yet');
  if (request.clusterId === '' || request.clusterId === clusterId) return;
  const text = `chunkserver ${request.serverId} holds data of cluster ${request.clusterId}, this is ${clusterId}`;
  throw new HoldfastError('WRONG_CLUSTER', text);
}

/** @throws HoldfastError WRONG_CLUSTER for the disk of a server that was removed: what it holds is out of date */
export function checkRemoved(diskUuid: string, map: ClusterMap): void {
  if (!map.removed?.uuids.includes(diskUuid)) return;
  const text = `disk ${diskUuid} was removed from this cluster: empty the data directory to use it again`;
  throw new HoldfastError('WRONG_CLUSTER', text);
}

/**
 * Identity is (server id, disk uuid). A server may come back with another disk, but only when the one with the former
 * disk certainly serves no more.
 * @param connected who is connected under this id now
 * @throws HoldfastError EEXIST for a duplicate; UNAVAILABLE while the lease of the former disk may hold
 */
export function checkStranger(
  info: ChunkServerInfo,
  connected: ChunkServerInfo | undefined,
  map: ClusterMap,
  leaseOver: boolean,
): void {
  if (connected && connected.diskUuid !== info.diskUuid) {
    const where = `${connected.host}:${connected.port}`;
    const text = `chunkserver id ${info.id} is in use at ${where} with disk ${connected.diskUuid}`;
    throw new HoldfastError('EEXIST', text);
  }
  const sameDisk = map.servers.find((server) => server.diskUuid === info.diskUuid);
  if (sameDisk && sameDisk.id !== info.id) {
    const text = `disk ${info.diskUuid} belongs to chunkserver ${sameDisk.id}, not ${info.id}`;
    throw new HoldfastError('EEXIST', text);
  }
  const known = map.servers.find((server) => server.id === info.id);
  if (known?.alive && known.diskUuid !== info.diskUuid && !leaseOver) {
    const text = `chunkserver ${info.id} was known with another disk, whose lease may still hold`;
    throw new HoldfastError('UNAVAILABLE', text);
  }
}
