import type { ChunkStore } from '../../../chunkserver/store/chunk-store.js';
import { crc32c } from '../../../common/crc32c.js';
import { toHoldfastError } from '../../../proto/errors.js';
import type { Cluster } from '../cluster.js';

const ALL = 1_000_000;

/** Why the metaservers' states are not the same; undefined: they are. */
export function statesDiffer(cluster: Cluster): string | undefined {
  let first: { applied: number; image: Buffer } | undefined;
  for (const { id, state, stores } of cluster.metas) {
    const image = stores?.image();
    if (!state || !image) return `metaserver ${id} is down`;
    const applied = state.appliedIndex();
    first ??= { applied, image };
    if (applied !== first.applied) return `metaserver ${id} has applied ${applied}, not ${first.applied}`;
    if (!image.equals(first.image)) return `metaserver ${id} holds another state than metaserver 1`;
  }
  return undefined;
}

/** All content of a group as text. */
async function dump(store: ChunkStore, pg: number): Promise<string[]> {
  const lines: string[] = [];
  for (const info of store.list(pg, undefined, ALL)) {
    const content = await store.readChunk(pg, info);
    const extents = (content?.extents ?? []).map(({ offset, data }) => ({ offset, data }));
    const text = joined(extents).map(({ offset, data }) => `${offset}+${data.length}#${crc32c(data)}`);
    const { epoch, seq } = info.version;
    lines.push(`${info.ino}/${info.chunk} ${epoch}.${seq} ${text.join(' ')}`);
  }
  for (const { ino, truncateSeq } of store.listTruncateSeqs(pg, 0, ALL)) {
    lines.push(`truncate ${ino} ${truncateSeq}`);
  }
  return lines;
}

/** How data is cut into extents is a store's own affair. */
function joined(extents: { offset: number; data: Buffer }[]): { offset: number; data: Buffer }[] {
  const runs: { offset: number; data: Buffer }[] = [];
  for (const { offset, data } of extents) {
    const last = runs.at(-1);
    if (last && last.offset + last.data.length === offset) last.data = Buffer.concat([last.data, data]);
    else runs.push({ offset, data });
  }
  return runs;
}

/** Why the replicas of a group are not the same; undefined: all are. */
export async function replicasDiffer(cluster: Cluster): Promise<string | undefined> {
  for (const { id, replicas } of cluster.map()?.pgs ?? []) {
    let first: string[] | undefined;
    for (const { server } of replicas) {
      const { store } = cluster.chunkserver(server);
      if (!store) return `chunkserver ${server} is down`;
      let lines: string[];
      try {
        lines = await dump(store, id);
      } catch (error) {
        if (toHoldfastError(error).errorName !== 'CORRUPT') throw error;
        return `group ${id}: chunkserver ${server} has damaged data that was not repaired`;
      }
      first ??= lines;
      const at = lines.findIndex((line, i) => line !== (first as string[])[i]);
      if (at < 0 && lines.length === first.length) continue;
      const place = at < 0 ? lines.length : at;
      return `group ${id}: chunkserver ${server} has ${lines[place]}, another one ${first[place]}`;
    }
  }
  return undefined;
}
