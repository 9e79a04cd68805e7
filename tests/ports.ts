import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';

/** Below the range from which the kernel takes ports for outgoing connections: nobody gets one while its server is down. */
const FIRST_PORT = 8000;
const PORTS_OF_A_WORKER = 4000;
/** Mocha's workers are numbered from 0; more than these share slices. */
const WORKERS_MAX = 6;

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'];

let next = 0;

/**
 * Takes ports that nobody else has: neither a test of this run, whichever of mocha's workers it runs in, nor another
 * program of this machine. A test whose server comes back at its old port must have it from here; who listens once
 * may as well use port 0.
 *
 * @returns the first of `count` ports in a row
 */
export function takePorts(count: number): number {
  const worker = Number(process.env.MOCHA_WORKER_ID ?? 0) % WORKERS_MAX;
  const start = FIRST_PORT + worker * PORTS_OF_A_WORKER;
  const used = portsInUse();
  for (let tried = 0; tried <= PORTS_OF_A_WORKER; tried += count) {
    if (next + count > PORTS_OF_A_WORKER) next = 0;
    const first = start + next;
    next += count;
    if (Array.from({ length: count }, (_, i) => first + i).every((port) => !used.has(port))) return first;
  }
  assert.fail(`no ${count} ports in a row are free from ${start} on`);
}

/** Local ports of all sockets in any state, as proc(5) lists them. */
function portsInUse(): Set<number> {
  const used = new Set<number>();
  for (const table of TABLES) {
    if (!existsSync(table)) continue;
    for (const line of readFileSync(table, 'latin1').split('\n').slice(1)) {
      const local = line.trim().split(/\s+/)[1]?.split(':')[1];
      if (local) used.add(Number.parseInt(local, 16));
    }
  }
  return used;
}
