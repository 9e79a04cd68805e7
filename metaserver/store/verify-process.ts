import { HoldfastError } from '../../proto/errors.js';
import { LmdbKv } from './lmdb-kv.js';
import { EXIT_DAMAGED, EXIT_SOUND } from './verify.js';

/**
 * The process of verify.ts: reads the whole store in the file that its argument names. LMDB trusts its pages, and damaged ones
 * may end whoever reads them. What is wrong goes to standard output.
 */
try {
  const kv = LmdbKv.open(process.argv[2] as string, { readOnly: true });
  kv.verify();
  await kv.close();
  process.exitCode = EXIT_SOUND;
} catch (error) {
  process.stdout.write(error instanceof Error ? error.message : String(error));
  process.exitCode = error instanceof HoldfastError && error.errorName === 'CORRUPT' ? EXIT_DAMAGED : 1;
}
