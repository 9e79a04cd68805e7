import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';

/**
 * Machines of a test on one real machine: each host is a network namespace with one address, all joined by a router in
 * a further namespace. No packet leaves these namespaces. The router drops what a cut forbids, per direction, without
 * an answer, as a broken cable does. Needs root and `ip` (iproute2) with policy routing.
 */

const NETNS_DIR = '/run/netns';
const PREFIX = 'hf';
/** 198.18.0.0/15 is kept for tests of networks (RFC 2544); host n has 198.18.n.2. */
const SUBNET = '198.18';
const HOSTS_MAX = 250;

/** Why namespaces cannot be made here, or undefined when they can. */
export function networkUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const probe = spawnSync('ip', ['netns', 'list']);
  return probe.status === 0 ? undefined : 'network namespaces need `ip` (iproute2)';
}

export class TestNetwork {
  readonly #tag = `${PREFIX}${process.pid}`;
  readonly #hosts: string[];
  readonly #cuts = new Set<string>();

  /** @param hosts names; they become parts of the namespaces' names */
  constructor(hosts: string[]) {
    if (hosts.length > HOSTS_MAX) throw new Error(`at most ${HOSTS_MAX} hosts`);
    this.#hosts = hosts;
  }

  /** Makes everything. @throws Error with the message of `ip` */
  open(): void {
    removeLeftovers();
    const router = this.#namespace('router');
    const names = this.#hosts.map((host) => this.#namespace(host));
    const links = this.#hosts.map(
      (_, n) => `link add h${n + 1} netns ${router} type veth peer name eth0 netns ${names[n]}`,
    );
    ipBatch([], [`netns add ${router}`, ...names.map((name) => `netns add ${name}`), ...links]);
    ipBatch(
      ['-n', router],
      [
        'link set lo up',
        ...this.#hosts.flatMap((_, n) => [
          `addr add ${SUBNET}.${n + 1}.1/30 dev h${n + 1}`,
          `link set h${n + 1} up`,
        ]),
      ],
    );
    command([...enter(router), 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward']);
    this.#hosts.forEach((_, n) => {
      ipBatch(
        ['-n', names[n] as string],
        [
          'link set lo up',
          `addr add ${SUBNET}.${n + 1}.2/30 dev eth0`,
          'link set eth0 up',
          `route add default via ${SUBNET}.${n + 1}.1`,
        ],
      );
    });
  }

  address(host: string): string {
    return `${SUBNET}.${this.#index(host) + 1}.2`;
  }

  /** What stands before a command line so that it runs on the host; its file systems stay those of this machine. */
  enter(host: string): string[] {
    this.#index(host);
    return enter(this.#namespace(host));
  }

  /** From now on nothing of what one of `from` sends reaches one of `to`; a host always reaches itself. */
  cut(from: string[], to: string[]): void {
    const pairs = from.flatMap((a) => to.filter((b) => b !== a).map((b) => [a, b] as [string, string]));
    const rules = pairs
      .map(([a, b]) => `from ${this.address(a)} to ${this.address(b)} blackhole`)
      .filter((rule) => !this.#cuts.has(rule));
    if (rules.length === 0) return;
    const lines = rules.map((rule) => `rule add ${rule}`);
    ipBatch(['-n', this.#namespace('router')], lines);
    for (const rule of rules) this.#cuts.add(rule);
  }

  /** Cuts every pair of the two groups, in both directions. */
  part(one: string[], other: string[]): void {
    this.cut(one, other);
    this.cut(other, one);
  }

  /** Every cut ends. */
  heal(): void {
    if (this.#cuts.size === 0) return;
    ipBatch(
      ['-n', this.#namespace('router')],
      [...this.#cuts].map((rule) => `rule del ${rule}`),
    );
    this.#cuts.clear();
  }

  /** What others send to the host arrives at this rate at most; undefined: as fast as it can. */
  limit(host: string, mbitPerSec: number | undefined): void {
    const device = `h${this.#index(host) + 1}`;
    const tc = ['tc', '-n', this.#namespace('router'), 'qdisc'];
    if (mbitPerSec === undefined) spawnSync('tc', [...tc.slice(1), 'del', 'dev', device, 'root']);
    else
      command([
        ...tc,
        ...['replace', 'dev', device, 'root', 'tbf', 'rate', `${mbitPerSec}mbit`],
        ...['burst', '256kb', 'latency', '100ms'],
      ]);
  }

  /** Removes the namespaces; the processes in them must have ended. */
  close(): void {
    for (const name of namespaces()) if (name.startsWith(`${this.#tag}-`)) deleteNamespace(name);
  }

  #namespace(host: string): string {
    return `${this.#tag}-${host}`;
  }

  #index(host: string): number {
    const index = this.#hosts.indexOf(host);
    if (index < 0) throw new Error(`no host ${host}; there are ${this.#hosts.join(', ')}`);
    return index;
  }
}

/** Namespaces of runs whose process is gone, and what still runs in them. */
function removeLeftovers(): void {
  for (const name of namespaces()) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    const pids = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).stdout.split('\n');
    for (const pid of pids) if (pid !== '') process.kill(Number(pid), 'SIGKILL');
    deleteNamespace(name);
  }
}

function namespaces(): string[] {
  return existsSync(NETNS_DIR) ? readdirSync(NETNS_DIR) : [];
}

function deleteNamespace(name: string): void {
  spawnSync('ip', ['netns', 'del', name]);
}

function enter(namespace: string): string[] {
  return ['nsenter', `--net=${NETNS_DIR}/${namespace}`, '--'];
}

function ipBatch(flags: string[], lines: string[]): void {
  command(['ip', ...flags, '-batch', '-'], lines.join('\n'));
}

function command(argv: string[], input = ''): void {
  const result = spawnSync(argv[0] as string, argv.slice(1), { input, encoding: 'utf8' });
  if (result.status === 0) return;
  throw new Error(`${argv.join(' ')}: ${result.stderr ?? result.error?.message}\n${input}`);
}
