import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Set in the process that runs behind a delayed network: the delay, ms. */
const DELAY_ENV = 'HOLDFAST_BENCH_DELAY_MS';

/** How the network of a scaling run is. */
export interface Network {
  delayMs: number;
  /** For the report. */
  note: string;
}

function quiet(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/**
 * Runs this program again in a network namespace whose loopback device delays every packet, where the kernel can.
 * @returns the network to measure on in this process, or undefined: the other process has done it
 */
export async function withDelay(delayMs: number): Promise<Network | undefined> {
  const set = process.env[DELAY_ENV];
  if (set !== undefined) {
    const note = `Every packet on the loopback device takes ${set} ms longer (tc netem), ${2 * Number(set)} ms a round trip.`;
    return { delayMs: Number(set), note };
  }
  const name = `hfbench${process.pid}`;
  const inside = (...args: string[]): boolean => quiet('ip', ['netns', 'exec', name, ...args]);
  if (!quiet('ip', ['netns', 'add', name]))
    return { delayMs: 0, note: lacking('no network namespace can be made') };
  try {
    const up = inside('ip', 'link', 'set', 'lo', 'up');
    if (!up || !inside('tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'netem', 'delay', `${delayMs}ms`))
      return { delayMs: 0, note: lacking('this kernel has no netem (CONFIG_NET_SCH_NETEM)') };
    const main = fileURLToPath(new URL('./main.js', import.meta.url));
    const child = spawn('ip', ['netns', 'exec', name, process.execPath, main, ...process.argv.slice(2)], {
      stdio: 'inherit',
      env: { ...process.env, [DELAY_ENV]: String(delayMs) },
    });
    process.exitCode = await new Promise<number>((resolve) =>
      child.once('exit', (code) => resolve(code ?? 1)),
    );
    return undefined;
  } finally {
    quiet('ip', ['netns', 'del', name]);
  }
}

function lacking(what: string): string {
  return `No network delay: ${what}. All processes share this machine's cores, which hides what more servers bring.`;
}
