import { assert } from '../../common/assert.js';
import { HoldfastError } from '../../proto/errors.js';
import { LmdbKv } from './lmdb-kv.js';
import { EXIT_DAMAGED, EXIT_SOUND } from './verify.js';

/**
 * The process of verify.ts: reads the whole store in the file that its first argument names. LMDB trusts its pages, and damaged ones
 * may end whoever reads them. What is wrong goes to standard output.
 * With a second argument the store is in use, by the process of that number, without which nobody needs the answer.
 */
let code = EXIT_SOUND;
try {
  const [, , path, user] = process.argv;
  const kv = LmdbKv.open(path as string, { readOnly: true });
  kv.verify(user === undefined ? undefined : () => assert(process.ppid === Number(user), 'nobody waits'));
  await kv.close();
} catch (error) {
  process.stdout.write(error instanceof Error ? error.message : String(error));
  code = error instanceof HoldfastError && error.errorName === 'CORRUPT' ? EXIT_DAMAGED : 1;
}
// At once: behind a store that could not be opened, what the binding of LMDB does at the end of a process may wait for ever.
process.exit(code);
