import { type ChunkState, encodeChunkState } from './extents.js';
import { indexKey, Table } from './index-db.js';
import { Overlay } from './overlay.js';

/** What is to be put; without a value it is removed. */
export interface Entry {
  key: Buffer;
  value: Buffer | undefined;
}

/** A changed value; undefined: removed. */
export interface Change<V> {
  value: V | undefined;
}

/** What changed between two checkpoints. */
export interface Generation {
  chunks: Overlay<Change<ChunkState>>;
  truncates: Overlay<Change<number>>;
  pgs: Set<number>;
  segments: Set<number>;
  extents: number;
}

/** Nothing has changed. */
export function newGeneration(): Generation {
  return { chunks: new Overlay(), truncates: new Overlay(), pgs: new Set(), segments: new Set(), extents: 0 };
}

function double(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return bytes;
}

/** Encoded one by one as they are asked for: those of a full generation take longer than a turn of the event loop may. */
export function* entriesOf(counters: readonly Entry[], generation: Generation): Generator<Entry> {
  yield* counters;
  yield* changeEntries(generation);
}

function* changeEntries(generation: Generation): Generator<Entry> {
  for (const { pg, ino, sub, value } of generation.chunks.entries()) {
    const state = value.value;
    yield { key: indexKey(Table.CHUNK, pg, ino, sub), value: state && encodeChunkState(state) };
  }
  for (const { pg, ino, value } of generation.truncates.entries()) {
    const seq = value.value;
    yield { key: indexKey(Table.TRUNCATE_SEQ, pg, ino), value: seq === undefined ? undefined : double(seq) };
  }
}
