import { open } from 'node:fs/promises';
import { systemClock } from '../../common/clock.js';
import { onInputEnd, say } from '../lab/line-program.js';
import { monotonicMs } from '../lab/monotonic.js';

/**
 * A writer that appends 4 KiB and fsyncs, again and again, until its standard input ends. Prints one JSON line for each
 * operation: when it began, monotonic milliseconds, and how long it took; and one for an operation that is still on.
 */

const RECORD_BYTES = 4096;
const PENDING_INTERVAL_MS = 100;
/** The file begins anew at this size. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;

async function main(path: string): Promise<void> {
  let stop = false;
  onInputEnd(() => {
    stop = true;
  });
  const file = await open(path, 'w');
  let began = monotonicMs();
  systemClock.every(
    PENDING_INTERVAL_MS,
    () => {
      if (monotonicMs() - began > PENDING_INTERVAL_MS) say({ pending: began });
    },
    { weak: true },
  );
  for (let n = 0; !stop; n++) {
    const record = Buffer.alloc(RECORD_BYTES, `${n} `);
    began = monotonicMs();
    try {
      await file.write(record, 0, RECORD_BYTES, (n * RECORD_BYTES) % FILE_BYTES_MAX);
      await file.sync();
    } catch (error) {
      say({ began, error: String(error) });
      continue;
    }
    say({ began, ms: monotonicMs() - began });
  }
  await file.close();
  process.exit(0);
}

void main(process.argv[2] as string);
