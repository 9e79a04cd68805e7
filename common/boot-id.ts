import { readFileSync } from 'node:fs';

const FILE = '/proc/sys/kernel/random/boot_id';

/** Names the present run of this machine's kernel (proc(5)): what was seen under another one is over. Empty where /proc is not there. */
export function bootId(): string {
  try {
    return readFileSync(FILE, 'latin1').trim();
  } catch {
    return '';
  }
}
