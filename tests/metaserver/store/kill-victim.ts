import { LmdbKv } from '../../../metaserver/store/lmdb-kv.js';

// Writes numbered transactions without end, and prints the number up to which they are flushed. To be killed.
const kv = LmdbKv.open(process.argv[2] as string, { flushAtBytes: 20_000 });
for (let n = 1; ; n++) {
  kv.transaction((txn) => {
    txn.put(Buffer.from(`key-${String(n).padStart(8, '0')}`), Buffer.from(`${n}`));
    txn.put(Buffer.from('applied'), Buffer.from(`${n}`));
  });
  if (n % 100 === 0) {
    await kv.flushed();
    process.stdout.write(`${n}\n`);
  } else if (n % 7 === 0) await new Promise(setImmediate);
}
