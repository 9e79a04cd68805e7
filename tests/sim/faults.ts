import { assert } from '../../common/assert.js';
import type { Prng } from '../../common/prng.js';
import type { ChunkMachine } from './chunkserver.js';
import type { ClientMachine } from './client.js';
import type { Cluster } from './cluster.js';
import type { Machine } from './machine.js';

const PAUSE_SHORT_MS = 400;
const PAUSE_LONG_MS = 3500;
const DOWN_MAX_MS = 2500;
/** A primary has lost one of its replicas for this long at most when it dies. */
const TORN_MS = 400;
const CUT_MAX_MS = 3500;
/** From a session's time-out until it is ended and shut out, and more. */
const SILENCE_LEAST_MS = 1000;
/** A silence is at most so much longer than the time-out. */
export const SILENCE_ROOM_MS = 3000;
const SLOW_MAX_MS = 4000;
const HANDSHAKES_MAX_MS = 3000;
const SLOW_FACTOR_MAX = 60;
/** Bits that change at once. */
const FLIPS = 6;
const FULL_MAX_MS = 1500;
const HUNG_SYNC_MS = 1500;
/** After so long the map shows that a chunkserver was gone. */
const NOTICED_MS = 3000;
/** Beyond what is used, while a disk is full. */
const FULL_LEFT_BYTES = 2000;

type Fault = [weight: number, name: string, strike: (nemesis: Nemesis) => void];

/** Chosen by weight. */
const FAULTS: readonly Fault[] = [
  [6, 'kill', (n) => n.kill(n.server())],
  [4, 'power cut', (n) => n.cutPower([n.server()])],
  [2, 'power cut of all', (n) => n.cutPower(n.cluster.machines)],
  [1, 'kill of all metaservers', (n) => n.killAll(n.cluster.metas)],
  [1, 'kill of all chunkservers', (n) => n.killAll(n.cluster.chunks)],
  [2, 'power cut of all chunkservers', (n) => n.cutPower(n.cluster.chunks)],
  [2, 'kill of the leader', (n) => n.kill(n.cluster.leader() ?? n.server())],
  [3, 'pause', (n) => n.pause(n.server(), PAUSE_SHORT_MS)],
  [3, 'long pause', (n) => n.pause(n.server(), PAUSE_LONG_MS)],
  [2, 'pause of the leader', (n) => n.pause(n.cluster.leader() ?? n.server(), PAUSE_LONG_MS)],
  [1, 'pause of a client', (n) => n.pauseClient()],
  [1, 'isolation of the leader', (n) => n.isolate((n.cluster.leader() ?? n.server()).name, 'both')],
  [1, 'isolation of a client', (n) => n.isolate(n.client().name, 'both')],
  [4, 'cut', (n) => n.cut(n.host(), n.host(), true)],
  [3, 'one-way cut', (n) => n.cut(n.host(), n.host(), false)],
  [3, 'isolation', (n) => n.isolate(n.server().name, 'both')],
  [2, 'deafness', (n) => n.isolate(n.server().name, 'in')],
  [2, 'dumbness', (n) => n.isolate(n.server().name, 'out')],
  [3, 'broken connections', (n) => n.cluster.world.network.breakAll(n.host(), n.host())],
  [2, 'lost handshakes', (n) => n.loseHandshakes(n.host())],
  [4, 'partition', (n) => n.partition()],
  [3, 'cut off from the metaservers', (n) => n.cutOffFromMetas(n.server())],
  [2, 'slow network', (n) => n.slowNetwork(n.host())],
  [2, 'slow disk', (n) => n.slowDisk(n.server())],
  [1, 'failed fsync', (n) => n.failSync(n.server())],
  [1, 'full disk', (n) => n.fill()],
  [2, 'handover', (n) => n.handOver()],
  [1, 'dead client', (n) => n.killClient()],
  [2, 'empty disk of a chunkserver', (n) => n.wipeChunkserver()],
  [2, 'flipped bits in a segment', (n) => n.flipBits()],
  [2, 'empty disk of a metaserver', (n) => n.wipeMetaserver()],
  [2, 'flipped bit of a metaserver', (n) => n.flipBitOfMetaserver()],
  // Asked for by name alone.
  [0, 'kill of a chunkserver and a client', (n) => n.killWithClient()],
  [0, 'hanging disk of the leader', (n) => n.hangDisk(n.cluster.leader() ?? n.server())],
];

/** What a mutation, or a run, may have as its favourite. */
export const FAULT_NAMES: ReadonlySet<string> = new Set(FAULTS.map(([, name]) => name));

export interface NemesisOptions {
  /** Mean time between two faults. */
  intervalMs: number;
  /** The fault that comes half of the times. */
  favourite?: string | undefined;
  /** How long faults come. */
  chaosMs: number;
  /** A client is silent for longer, once; undefined: none. */
  sessionTimeoutMs: number | undefined;
  onPowerCut(): void;
  onFullDisk(): void;
  onClientDeath(name: string): void;
}

/** Lets things go wrong, at random, until it is told to stop; then it repairs everything. */
export class Nemesis {
  readonly cluster: Cluster;
  readonly #options: NemesisOptions;
  readonly #total: number;
  readonly counts = new Map<string, number>();
  /** Undone when it stops. */
  readonly #heal = new Set<() => void>();
  #stopped = false;
  /** The chunkserver whose disk has changed by itself; and whether one has lost its disk. */
  #damaged: ChunkMachine | undefined;
  #wiped = false;
  /** When a chunkserver lost what it had not synced, last. */
  #lossAt: number | undefined;

  constructor(cluster: Cluster, options: NemesisOptions) {
    this.cluster = cluster;
    this.#options = options;
    this.#total = FAULTS.reduce((sum, [weight]) => sum + weight, 0);
    for (const machine of cluster.chunks) {
      machine.onLoss = () => {
        this.#lossAt = cluster.world.time.now();
        options.onPowerCut();
      };
    }
  }

  get prng(): Prng {
    return this.cluster.world.prng;
  }

  start(): void {
    const { sessionTimeoutMs } = this.#options;
    if (sessionTimeoutMs !== undefined) this.#silenceClient(sessionTimeoutMs);
    this.#goOn();
  }

  #goOn(): void {
    this.#after(this.prng.float() * 2 * this.#options.intervalMs, () => {
      this.#strike();
      this.#goOn();
    });
  }

  /** Heals what can be healed, and starts what is down. */
  stop(): void {
    this.#stopped = true;
    for (const heal of [...this.#heal]) heal();
    // What has changed on a metaserver's disk is found at its next start at the latest.
    for (const machine of this.cluster.metas) if (machine.bitsFlipped > 0) machine.kill();
    for (const machine of this.cluster.machines) {
      machine.process?.resume();
      machine.start();
    }
    for (const { process } of this.cluster.clients) process.resume();
  }

  #strike(): void {
    const [, name, strike] = this.#draw();
    this.#tell(name);
    strike(this);
  }

  #tell(name: string): void {
    this.cluster.world.trace.note(`fault: ${name}`, undefined);
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  #draw(): Fault {
    const { favourite } = this.#options;
    if (favourite !== undefined && this.prng.int(2) === 0) {
      const found = FAULTS.find(([, name]) => name === favourite);
      assert(found, `there is a fault '${favourite}'`);
      return found;
    }
    let at = this.prng.int(this.#total);
    for (const fault of FAULTS) {
      at -= fault[0];
      if (at < 0) return fault;
    }
    throw new Error('the weights add up to the total');
  }

  #after(ms: number, fn: () => void): void {
    this.cluster.world.time.after(ms, () => {
      if (!this.#stopped) fn();
    });
  }

  /** Undoes something after a time, or at the stop. */
  #healLater(ms: number, heal: () => void): void {
    const once = (): void => {
      if (this.#heal.delete(once)) heal();
    };
    this.#heal.add(once);
    this.cluster.world.time.after(ms, once);
  }

  server(): Machine {
    const { machines } = this.cluster;
    return machines[this.prng.int(machines.length)] as Machine;
  }

  client(): ClientMachine {
    const { clients } = this.cluster;
    return clients[this.prng.int(clients.length)] as ClientMachine;
  }

  host(): string {
    const { machines, clients } = this.cluster;
    const at = this.prng.int(machines.length + clients.length);
    return machines[at]?.name ?? (clients[at - machines.length]?.name as string);
  }

  #startLater(machine: Machine): void {
    const short = this.prng.int(2) === 0;
    this.#healLater(10 + this.prng.float() * (short ? 200 : DOWN_MAX_MS), () => machine.start());
  }

  /**
   * A chunkserver has lost what it had not synced, and has not got it back from the others. When these fail too, a group may
   * go on from what is left there (a sync tells it, by the lineage): only what is synced is certain meanwhile.
   */
  get copiesMissing(): boolean {
    const { cluster } = this;
    if (this.#lossAt === undefined) return false;
    const noticed = cluster.world.time.now() - this.#lossAt > NOTICED_MS;
    if (noticed && cluster.chunksWhole()) this.#lossAt = undefined;
    return this.#lossAt !== undefined;
  }

  kill(machine: Machine): void {
    machine.kill();
    this.#startLater(machine);
  }

  killAll(machines: readonly Machine[]): void {
    for (const machine of machines) this.kill(machine);
  }

  cutPower(machines: readonly Machine[]): void {
    this.#options.onPowerCut();
    for (const machine of machines) {
      machine.cutPower();
      this.#startLater(machine);
    }
  }

  pause(machine: Machine, maxMs: number): void {
    const { process } = machine;
    if (!process || process.paused) return;
    process.pause();
    this.#healLater(this.prng.float() * maxMs, () => process.resume());
  }

  pauseClient(): void {
    const { clients } = this.cluster;
    const process = clients[this.prng.int(clients.length)]?.process;
    if (!process || process.paused) return;
    process.pause();
    this.#healLater(this.prng.float() * PAUSE_LONG_MS, () => process.resume());
  }

  /** A client that is shut out meanwhile, and wakes up, or sees the others again, as if nothing had been. */
  #silenceClient(sessionTimeoutMs: number): void {
    const ms = sessionTimeoutMs + SILENCE_LEAST_MS + this.prng.float() * (SILENCE_ROOM_MS - SILENCE_LEAST_MS);
    this.#after(this.prng.float() * (this.#options.chaosMs - ms), () => {
      const { clients } = this.cluster;
      const client = clients[this.prng.int(clients.length)];
      if (!client || client.process.paused) return;
      this.#tell('client silent beyond its time-out');
      if (this.prng.int(3) === 0) {
        this.isolate(client.name, 'both', ms);
        return;
      }
      client.process.pause();
      this.#healLater(ms, () => client.process.resume());
    });
  }

  cut(a: string, b: string, bothWays: boolean): void {
    if (a === b) return;
    const { network } = this.cluster.world;
    const ms = this.prng.float() * CUT_MAX_MS;
    this.#healLater(ms, network.cut(a, b));
    if (bothWays) this.#healLater(ms, network.cut(b, a));
  }

  isolate(name: string, direction: 'in' | 'out' | 'both', ms = this.prng.float() * CUT_MAX_MS): void {
    const { machines, clients, world } = this.cluster;
    for (const other of [...machines, ...clients]) {
      if (other.name === name) continue;
      if (direction !== 'in') this.#healLater(ms, world.network.cut(name, other.name));
      if (direction !== 'out') this.#healLater(ms, world.network.cut(other.name, name));
    }
  }

  /** Two halves that do not see each other. */
  partition(): void {
    const { machines, clients, world } = this.cluster;
    const halves: [string[], string[]] = [[], []];
    for (const { name } of [...machines, ...clients]) (halves[this.prng.int(2)] as string[]).push(name);
    const ms = this.prng.float() * CUT_MAX_MS;
    for (const a of halves[0]) {
      for (const b of halves[1]) {
        this.#healLater(ms, world.network.cut(a, b));
        this.#healLater(ms, world.network.cut(b, a));
      }
    }
  }

  /** Clients and chunkservers still reach it. */
  cutOffFromMetas(machine: Machine): void {
    const { metas, world } = this.cluster;
    const ms = this.prng.float() * CUT_MAX_MS;
    for (const { name } of metas) {
      if (name === machine.name) continue;
      this.#healLater(ms, world.network.cut(machine.name, name));
      this.#healLater(ms, world.network.cut(name, machine.name));
    }
  }

  /** Its connections break, and new ones are hard to set up for a while. */
  loseHandshakes(name: string): void {
    const { machines, clients, world } = this.cluster;
    const { network } = world;
    network.losesHandshakes.add(name);
    this.#healLater(this.prng.float() * HANDSHAKES_MAX_MS, () => network.losesHandshakes.delete(name));
    for (const other of [...machines, ...clients]) {
      if (other.name !== name && this.prng.int(2) === 0) network.breakAll(name, other.name);
    }
  }

  slowNetwork(name: string): void {
    const { slow } = this.cluster.world.network;
    slow.set(name, 1 + this.prng.float() * SLOW_FACTOR_MAX);
    this.#healLater(this.prng.float() * SLOW_MAX_MS, () => slow.delete(name));
  }

  slowDisk(machine: Machine): void {
    machine.mood.extraSyncMs = this.prng.float() * this.prng.float() * 1000;
    this.#healLater(this.prng.float() * SLOW_MAX_MS, () => {
      machine.mood.extraSyncMs = 0;
    });
  }

  /** Each sync takes longer than it takes to notice that the disk is slow. */
  hangDisk(machine: Machine): void {
    machine.mood.extraSyncMs = HUNG_SYNC_MS;
    this.#healLater(SLOW_MAX_MS, () => {
      machine.mood.extraSyncMs = 0;
    });
  }

  failSync(machine: Machine): void {
    machine.diskFaults++;
    machine.disk.fail('datasync', 'EIO');
  }

  fill(): void {
    const { chunks } = this.cluster;
    const machine = chunks[this.prng.int(chunks.length)] as Machine;
    const { disk } = machine;
    machine.diskFaults++;
    this.#options.onFullDisk();
    this.#healLater(this.prng.float() * FULL_MAX_MS, () => {
      disk.capacityBytes = machine.capacityBytes;
    });
    void disk.space().then(({ totalBytes, freeBytes }) => {
      disk.capacityBytes = totalBytes - freeBytes + FULL_LEFT_BYTES;
    });
  }

  /**
   * One disk at a time: the next one only when everything that it held has its copies again. Where one replica is enough for a
   * write, the loss of its disk while the other one is cut off is beyond the promise: nobody knows then what it acknowledged alone.
   */
  wipeChunkserver(): void {
    const { cluster, prng } = this;
    const machine = cluster.chunks[prng.int(cluster.chunks.length)];
    if (!machine || cluster.shape.minInSync === 1 || this.#damaged || !cluster.chunksWhole()) return;
    this.#wiped = true;
    machine.wipe();
    this.#startLater(machine);
  }

  /**
   * On one server in a run, and only where no disk is lost: what lies on it may be damaged for long before anybody looks. Not in
   * its newest segment: the end of a log that is damaged looks like one that was never written.
   */
  flipBits(): void {
    const { cluster, prng } = this;
    const machine = this.#damaged ?? cluster.chunks[prng.int(cluster.chunks.length)];
    if (!machine || cluster.shape.minInSync === 1 || this.#wiped || !cluster.chunksWhole()) return;
    const segments = machine.segments().slice(0, -1);
    if (segments.length === 0) return;
    this.#damaged = machine;
    machine.bitsFlipped += FLIPS;
    for (let i = 0; i < FLIPS; i++) {
      const segment = segments[prng.int(segments.length)] as string;
      machine.disk.flipBit(segment, prng.int(machine.disk.content(segment).length), prng.int(8));
    }
  }

  wipeMetaserver(): void {
    const { cluster, prng } = this;
    const machine = cluster.metas[prng.int(cluster.metas.length)];
    if (!machine?.member || !this.#mayLoseMember()) return;
    machine.wipe();
    this.#startLater(machine);
  }

  /** Damage that nobody has found yet is a disk that may be lost at any moment. */
  #mayLoseMember(): boolean {
    return this.cluster.metasWhole() && this.cluster.metas.every(({ bitsFlipped }) => bitsFlipped === 0);
  }

  flipBitOfMetaserver(): void {
    const { cluster, prng } = this;
    const machine = cluster.metas[prng.int(cluster.metas.length)];
    if (machine && this.#mayLoseMember()) machine.flipBit(prng);
  }

  handOver(): void {
    const leader = this.cluster.leader();
    if (!leader?.replica || leader.process?.paused) return;
    leader.replica.transferLeader(0).catch((error: unknown) => {
      this.cluster.world.trace.note('handover failed', undefined, () => String(error));
    });
  }

  /** One replica may have what another one lacks, and nobody repeats it. */
  killWithClient(): void {
    const { chunks, world } = this.cluster;
    const primary = chunks[this.prng.int(chunks.length)] as Machine;
    const behind = chunks[this.prng.int(chunks.length)] as Machine;
    if (primary !== behind) this.#healLater(TORN_MS, world.network.cut(primary.name, behind.name));
    this.#after(this.prng.float() * TORN_MS, () => {
      this.kill(primary);
      this.killClient();
    });
  }

  /** A client's machine dies, and another one takes its place. */
  killClient(): void {
    const { clients } = this.cluster;
    const client = clients[this.prng.int(clients.length)];
    if (client) this.#options.onClientDeath(client.name);
  }
}
