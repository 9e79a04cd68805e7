import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, sh } from '../../lab/command.js';
import { eventually } from '../../lab/eventually.js';
import { kill } from '../../lab/processes.js';
import { processesNaming } from '../cpu.js';

/** Some peers refuse 127.x: they get this address on the loopback device while they run. */
export const PEER_ADDRESS = '10.77.0.1';
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;

/** The processes of one peer, in the foreground below this one, so that none is left behind. */
export class Daemons {
  readonly #running = new Map<string, ChildProcess>();
  readonly #logs: string;

  /** @param logs directory for their output */
  constructor(logs: string) {
    this.#logs = logs;
  }

  start(name: string, command: string, args: readonly string[]): void {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
    const log = createWriteStream(join(this.#logs, `${name}.log`), { flags: 'a' });
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    child.once('error', () => this.#running.delete(name));
    child.once('exit', () => this.#running.delete(name));
    this.#running.set(name, child);
  }

  pids(): Map<string, number> {
    return new Map([...this.#running].map(([name, child]) => [name, child.pid ?? 0]));
  }

  async stop(name: string): Promise<void> {
    const child = this.#running.get(name);
    if (!child) return;
    child.kill('SIGTERM');
    await eventually(`${name} stops`, () => !this.#running.has(name), STOP_TIMEOUT_MS).catch(() => {
      child.kill('SIGKILL');
    });
  }

  /** The latest first. */
  async stopAll(): Promise<void> {
    for (const name of [...this.#running.keys()].reverse()) await this.stop(name);
  }
}

/** Kills what a peer's servers have started by themselves: every process that names the peer's own directory. */
export function killBelow(root: string): void {
  for (const pid of processesNaming(root)) kill(pid);
}

/** Waits until something is mounted at a directory and answers. @throws Error */
export async function waitMounted(mount: string): Promise<void> {
  await eventually(`${mount} is mounted`, () => isMounted(mount), START_TIMEOUT_MS);
  await sh(`ls ${mount} > /dev/null`, { timeoutMs: START_TIMEOUT_MS });
}

export function isMounted(mount: string): boolean {
  return readFileSync('/proc/mounts', 'utf8').includes(` ${mount} fuse`);
}

/** Unmounts, lazily as the last resort. */
export async function unmount(mount: string): Promise<void> {
  if (!isMounted(mount)) return;
  const gone = (): Promise<boolean> =>
    run('umount', [mount], { timeoutMs: STOP_TIMEOUT_MS }).then(() => !isMounted(mount));
  await eventually(`${mount} is unmounted`, gone, STOP_TIMEOUT_MS).catch(() => run('umount', ['-l', mount]));
}

/** Waits until a port takes connections. @throws Error */
export async function waitPort(host: string, port: number): Promise<void> {
  const open = async (): Promise<boolean> =>
    (await run('bash', ['-c', `exec 3<>/dev/tcp/${host}/${port}`], { timeoutMs: STOP_TIMEOUT_MS })).code ===
    0;
  await eventually(`${host}:${port} listens`, open, START_TIMEOUT_MS);
}

export async function addPeerAddress(): Promise<void> {
  await sh(`ip addr show dev lo | grep -q 'inet ${PEER_ADDRESS}/' || ip addr add ${PEER_ADDRESS}/32 dev lo`);
}

export async function removePeerAddress(): Promise<void> {
  await run('ip', ['addr', 'del', `${PEER_ADDRESS}/32`, 'dev', 'lo']);
}

/** The Debian packages to install when one of these programs is not there. */
export function missingPrograms(programs: readonly string[], packages: string): string | undefined {
  const absent = programs.filter((one) => spawnSync('bash', ['-c', `command -v ${one}`]).status !== 0);
  return absent.length > 0 ? `apt install ${packages}` : undefined;
}
