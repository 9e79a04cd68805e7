import { HEARTBEAT_SILENCE_MS } from '../../../../chunkserver/service/heartbeat.js';
import { PgHost } from '../../../../chunkserver/service/pg-host.js';
import { routeFrame } from '../../../../chunkserver/service/route.js';
import type { Clock } from '../../../../common/clock.js';
import { silentLogger } from '../../../../common/logger.js';
import { HoldfastError } from '../../../../proto/errors.js';
import type { Frame, FrameReply } from '../../../../proto/frames.js';
import type { ClusterMap } from '../../../../proto/gen/cluster.js';
import { HEARTBEAT_INTERVAL_MS } from '../../../../proto/types.js';
import { MemoryDisk, MemoryStore } from '../../support/memory-store.js';
import type { SimStream } from './authority.js';
import type { SimLink } from './link.js';
import type { Simulation } from './simulation.js';

/** One chunkserver of the simulation: the real host over a memory store; it dies, pauses and returns. */
export class SimServer {
  readonly id: number;
  readonly #sim: Simulation;
  disk = new MemoryDisk();
  wipes = 0;
  store!: MemoryStore;
  host: PgHost | undefined;
  stream: SimStream | undefined;
  /** Ends of connections, both directions. */
  readonly links = new Set<SimLink>();
  paused = false;
  /** When the authority last answered. */
  heardAt = 0;
  #held: (() => void)[] = [];
  #life = 0;

  constructor(sim: Simulation, id: number) {
    this.#sim = sim;
    this.id = id;
  }

  get up(): boolean {
    return this.host !== undefined;
  }

  get diskUuid(): string {
    return `disk-${this.id}-${this.wipes}`;
  }

  /** Runs `fn` in this life of the process, later while it is paused. */
  at(ms: number, fn: () => void): { cancel(): void } {
    const life = this.#life;
    return this.#sim.clock.after(ms, () => {
      if (this.#life !== life) return;
      if (this.paused) this.#held.push(() => this.#life === life && fn());
      else fn();
    });
  }

  start(): void {
    const { sim, clock } = { sim: this.#sim, clock: this.#sim.clock };
    const own: Clock = {
      now: () => clock.now(),
      wall: () => clock.wall(),
      after: (ms, fn) => this.at(ms, fn),
      every: () => {
        throw new Error('not used');
      },
    };
    this.store = new MemoryStore({
      disk: this.disk,
      diskUuid: this.diskUuid,
      complete: (fn) => this.at(sim.delay(sim.diskMs), fn),
    });
    this.host = new PgHost({
      self: this.id,
      store: this.store,
      clock: own,
      log: silentLogger,
      recoveryBytesPerSecond: 1e9,
      limits: sim.limits,
      reports: {
        replicaFailed: (_pg, epoch, server) =>
          this.#toAuthority((s) => sim.authority.replicaFailed(s, epoch, server)),
        replicaCaughtUp: (_pg, epoch, server) =>
          this.#toAuthority((s) => sim.authority.replicaCaughtUp(s, epoch, server)),
      },
      onFatal: (error) => sim.fail(error),
    });
    const tick = (): void => {
      this.host?.tick();
      this.at(100, tick);
    };
    this.at(100, tick);
    this.#register();
    sim.dial(this);
  }

  #register(): void {
    this.at(this.#sim.delay(100), () => {
      const stream = this.#sim.openStream(this);
      this.stream = stream;
      const boot = `${this.id}-${this.#life}`;
      this.#toAuthority((s) => this.#sim.authority.register(s, this.store.diskUuid, boot));
      // An attempt that is not answered is made again.
      this.at(500, () => {
        if (this.stream === stream && !this.#registered) this.#register();
      });
    });
  }

  #registered = false;

  registered(stream: SimStream, map: ClusterMap): void {
    if (this.stream !== stream || this.#registered) return;
    this.#registered = true;
    this.heardAt = this.#sim.clock.now();
    this.host?.setMap(map);
    this.host?.setRegistered(true);
    const beat = (): void => {
      if (this.stream !== stream) return;
      const now = this.#sim.clock.now();
      if (now - this.heardAt > HEARTBEAT_SILENCE_MS) {
        this.streamEnded(stream, 'silent');
        return;
      }
      const version = this.host?.map?.version ?? 0;
      this.#toAuthority((s) => this.#sim.authority.heartbeat(s, now, version));
      this.at(HEARTBEAT_INTERVAL_MS, beat);
    };
    beat();
  }

  lease(until: number): void {
    this.heardAt = this.#sim.clock.now();
    this.host?.setLease(until);
  }

  streamEnded(stream: SimStream, _reason: string): void {
    if (this.stream !== stream) return;
    this.stream = undefined;
    this.#registered = false;
    this.host?.setRegistered(false);
    this.#register();
  }

  #toAuthority(deliver: (stream: SimStream) => void): void {
    const { stream } = this;
    if (stream) this.#sim.upstream(stream, () => deliver(stream));
  }

  /** Serves what comes over a connection of this life. */
  handle(frame: Frame, link: SimLink): Promise<FrameReply> {
    if (!this.host) return Promise.reject(new HoldfastError('UNAVAILABLE'));
    return routeFrame(this.host, frame, link, link.server, this.#sim.clock.now());
  }

  /** kill -9; what the OS holds stays. */
  kill(): void {
    this.host?.close();
    for (const link of [...this.links]) link.close('killed');
    this.host = undefined;
    this.#life++;
    this.paused = false;
    this.#held = [];
    this.#registered = false;
    const { stream } = this;
    this.stream = undefined;
    if (stream) this.#sim.clock.after(this.#sim.delay(30), () => this.#sim.authority.ended(stream));
  }

  /** A power cut: what was not synced is lost. @param kept so many records of it are not; default: some */
  cutPower(kept?: number): void {
    this.kill();
    const unsynced = this.disk.records.length - this.disk.durable;
    this.disk.loseUnsynced(kept ?? this.#sim.prng.int(unsynced + 1));
  }

  wipe(): void {
    this.kill();
    this.disk = new MemoryDisk();
    this.wipes++;
  }

  resume(): void {
    this.paused = false;
    const held = this.#held;
    this.#held = [];
    for (const fn of held) fn();
  }
}
