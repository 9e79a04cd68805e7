import { readFile } from 'node:fs/promises';
import { LmdbKv } from '../../metaserver/store/lmdb-kv.js';
import { MemoryKv } from '../../metaserver/store/memory-kv.js';
import { kvContract } from './kv-suite.js';

const closedImages = new Map<string, MemoryKv>();

kvContract('MemoryKv', {
  async open(path) {
    const kv = new MemoryKv(closedImages.get(path)?.image());
    closedImages.set(path, kv);
    return kv;
  },
  openBackup: async (path) => new MemoryKv(await readFile(path)),
  crash: async (kv) => (kv as MemoryKv).afterCrash(),
});

kvContract('LmdbKv', {
  open: async (path) => LmdbKv.open(path),
  openBackup: async (path) => LmdbKv.open(path),
  // Without a second process: a copy of the file as it is, in the state that a crash would leave.
  async crash(kv, path) {
    const { copyFile } = await import('node:fs/promises');
    await copyFile(path, `${path}.crashed`);
    await kv.close();
    return LmdbKv.open(`${path}.crashed`);
  },
});
