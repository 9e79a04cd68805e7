import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { delay, systemClock } from '../../common/clock.js';
import { onInputEnd, say } from '../lab/line-program.js';
import { monotonicMs } from '../lab/monotonic.js';
import { REGISTER_BYTES, REGISTERS } from './consistency.js';

/**
 * The programs of consistency.ts, each in a process of its own because it uses a mount. They run until standard input
 * ends and print one JSON line for each operation.
 */

const PAUSE_MS = 25;
let stop = false;

/** Writes rising numbers into the registers and syncs each. */
async function write(dir: string): Promise<void> {
  const files = [];
  for (let r = 0; r < REGISTERS; r++) files.push(await open(`${dir}/register-${r}`, 'w'));
  for (let value = 1; !stop; value++) {
    const register = value % REGISTERS;
    const block = Buffer.alloc(REGISTER_BYTES);
    for (let at = 0; at < REGISTER_BYTES; at += 8) block.writeDoubleLE(value, at);
    const began = monotonicMs();
    say({ kind: 'write-began', register, value, began });
    await files[register]?.write(block, 0, REGISTER_BYTES, 0);
    await files[register]?.sync();
    say({ kind: 'write', register, value, began, ended: monotonicMs() });
    await delay(systemClock, PAUSE_MS);
  }
  for (const file of files) await file.close();
}

/** Reads the registers past the page cache. */
async function read(dir: string): Promise<void> {
  for (let n = 0; !stop; n++) {
    const register = n % REGISTERS;
    const began = monotonicMs();
    const file = await open(`${dir}/register-${register}`, constants.O_RDONLY | constants.O_DIRECT).catch(
      () => undefined,
    );
    if (file) {
      const block = Buffer.alloc(REGISTER_BYTES);
      const { bytesRead } = await file.read(block, 0, REGISTER_BYTES, 0);
      await file.close();
      const value = bytesRead === 0 ? 0 : block.readDoubleLE(0);
      let torn = bytesRead !== 0 && bytesRead !== REGISTER_BYTES;
      for (let at = 0; at < bytesRead; at += 8) torn ||= block.readDoubleLE(at) !== value;
      say({ kind: 'read', register, value, torn, began, ended: monotonicMs() });
    }
    await delay(systemClock, PAUSE_MS);
  }
}

/** Claims names that another claims at the same time: each name must have one winner. */
async function claim(dir: string): Promise<void> {
  for (let name = 0; !stop; name++) {
    const began = monotonicMs();
    let won = true;
    try {
      await (await open(`${dir}/claim-${name}`, 'wx')).close();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      won = false;
    }
    say({ kind: 'claim', name, won, began, ended: monotonicMs() });
    if (won) await delay(systemClock, PAUSE_MS);
  }
}

/** What is there: the registers' values and the claimed names. */
async function list(dir: string): Promise<void> {
  const names = await readdir(dir);
  say({ kind: 'names', names });
}

const PROGRAMS: Record<string, (dir: string) => Promise<void>> = { write, read, claim, list };

onInputEnd(() => {
  stop = true;
});
const [program, dir] = process.argv.slice(2) as [string, string];
PROGRAMS[program]?.(dir).then(
  () => process.exit(0),
  (error: unknown) => {
    say({ kind: 'error', message: String(error) });
    process.exit(1);
  },
);
