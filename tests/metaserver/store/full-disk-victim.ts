import { LmdbKv } from '../../../metaserver/store/lmdb-kv.js';

// Writes and flushes until the disk refuses, and reports what still works then.
const told: string[] = [];
const kv = LmdbKv.open(process.argv[2] as string, { onFailure: (error) => told.push(error.errorName) });
/** What the owner of the store had been told when the first flush was refused. */
let toldAtOnce: string[] = [];
const key = (n: number): Buffer => Buffer.from(`key-${n}`);
const errors: string[] = [];
const note = (error: unknown): void => {
  if (errors.push(String(error)) === 1) toldAtOnce = [...told];
};
let written = 0;
let flushed = 0;
while (errors.length === 0) {
  kv.transaction((txn) => {
    for (let n = 0; n < 2000; n++) txn.put(key(written++), Buffer.from('value'));
  });
  await kv.flushed().then(() => {
    flushed = written;
  }, note);
}
try {
  kv.transaction((txn) => txn.put(key(0), Buffer.from('lost')));
} catch (error) {
  note(error);
}
await kv.flushed().catch(note);
const [firstRead, lastRead] = [kv.get(key(0)), kv.get(key(written - 1))].map(String);
await kv.close().catch(note);
process.stdout.write(JSON.stringify({ flushed, errors, firstRead, lastRead, toldAtOnce, told }));
