import { crc32c } from '../../common/crc32c.js';
import { Command } from '../../proto/gen/meta.js';
import { cellsModel } from '../histories/cells-model.js';
import { Cells } from './checkers/cells.js';
import {
  checkLinearizable,
  History,
  type Operation,
  registerModel,
  UndecidedError,
} from './checkers/linearizability.js';
import { namespaceModel } from './checkers/namespace-model.js';
import { replicasDiffer, statesDiffer } from './checkers/quiet.js';
import { RaftChecker } from './checkers/raft.js';
import type { ClientMachine } from './client.js';
import { Cluster } from './cluster.js';
import { Nemesis } from './faults.js';
import type { Mutation } from './mutations/index.js';
import { type Plan, planOf, shapeOf } from './plan.js';
import { Attributes, AttributesWorker } from './workload/attributes.js';
import { BlocksWorker } from './workload/blocks.js';
import { Files, FilesWorker } from './workload/files.js';
import { Locks, LocksWorker } from './workload/locks.js';
import { Names, NamesWorker, REGISTERS } from './workload/names.js';
import { holdWritesUp, Shared, SharedWorker } from './workload/shared.js';
import { Turns, TurnsWorker } from './workload/turns.js';
import type { Worker } from './workload/worker.js';
import { World } from './world.js';

/** Virtual time: before the first fault, and the longest wait for quiet after the last one. */
const FORMATION_MAX_MS = 5_000;
const QUIET_MAX_MS = 60_000;
/** Servers must hold the same within so long after the last answer. */
const AGREE_MAX_MS = 10_000;
/** Of runs in which programs use the same files, and nothing fails. */
const SHARED_ALONE_MS = 8_000;

export interface SimulationOptions {
  seed: number;
  /** Keeps the trace's lines. */
  verbose?: boolean;
  mutation?: Mutation;
  /** The fault that comes half of the times; default: the mutation's. */
  favourite?: string;
  /** Only programs that write, append to and truncate the same files; default: as the mutation says. */
  shared?: boolean;
}

export interface SimulationResult {
  seed: number;
  hash: string;
  virtualMs: number;
  messages: number;
  operations: number;
  elections: number;
  faults: number;
  faultKinds: Record<string, number>;
  reads: number;
  synced: number;
  /** Sessions of clients that lived on, and were shut out. */
  expired: number;
  /** Damaged chunks that were found and replaced. */
  repaired: number;
  /** Damaged disks of metaservers that were found, and given up. */
  damaged: number;
  /** Histories in which too much overlapped to be decided. */
  undecided: number;
}

/** One run: a cluster, its clients and what goes wrong, all from one seed. */
export class Simulation {
  #undecided = 0;
  readonly world: World;
  readonly cluster: Cluster;
  readonly nemesis: Nemesis;
  readonly #raft = new RaftChecker();
  readonly #names: Names;
  readonly #blocks = new Cells();
  readonly #files = new Files(new Cells());
  readonly #locks: Locks;
  readonly #attributes: Attributes;
  readonly #turns: Turns;
  readonly #shared: Shared | undefined;
  readonly #workers: Worker[] = [];
  readonly #writers: number[] = [];
  #nextClient: number;
  #quiet = false;
  /** Of the commands that any state machine was given. */
  #highest = 0;
  #expired = 0;
  readonly #plan: Plan;
  readonly #aloneMs: number | undefined;
  readonly #plant: Mutation['plant'];

  constructor(options: SimulationOptions) {
    const { seed, verbose, mutation, favourite = mutation?.favourite } = options;
    const world = new World(seed, verbose);
    this.world = world;
    const plan = planOf(seed, world.prng);
    this.#plan = { ...plan, sessionTimes: mutation?.sessionTimes ?? plan.sessionTimes };
    const shape = shapeOf(seed);
    const apply = mutation?.apply?.();
    this.cluster = new Cluster(world, shape, this.#plan.sessionTimes, {
      onApply: (server, index, data) => this.#applied(server, index, data, apply),
      onMemberLost: (member) => this.#raft.lost(member),
      ...mutation?.hooks?.(world),
    });
    this.#nextClient = shape.clients + 1;
    const isOver = (session: number): boolean => this.#isOver(session);
    this.#locks = new Locks(new Cells(), isOver);
    this.#attributes = new Attributes(new Cells(), isOver);
    this.#turns = new Turns(new Cells(), isOver);
    this.#names = new Names(
      new History(),
      Array.from({ length: 2 * REGISTERS }, () => new History()),
    );
    const tamper = mutation?.tap?.(world);
    world.network.tap = (from, bytes) => {
      const sent = tamper?.(from, bytes);
      for (const each of sent ?? [bytes]) {
        this.#guard(() => this.#raft.sent(from.dialled.path, from.isClient, each));
      }
      return sent;
    };
    this.nemesis = new Nemesis(this.cluster, {
      intervalMs: this.#plan.faultIntervalMs,
      favourite,
      chaosMs: this.#plan.chaosMs,
      sessionTimeoutMs: this.#plan.silentClient ? this.#plan.sessionTimes.timeoutMs : undefined,
      onPowerCut: () => {
        this.#blocks.powerLost();
        this.#files.cells.powerLost();
        this.#locks.cells.powerLost();
        this.#turns.cells.powerLost();
        this.#shared?.lost();
      },
      onFullDisk: () => {
        // A close has answered; what is then written back in vain is gone.
        for (const cells of [this.#files.cells, this.#locks.cells, this.#turns.cells]) {
          cells.wasFull = true;
          cells.powerLost();
        }
        this.#shared?.diskFull();
      },
      onClientDeath: (name) => this.#replaceClient(name),
    });
    this.#blocks.unsure = () => this.nemesis.copiesMissing;
    this.#aloneMs = mutation?.aloneMs;
    if (options.shared ?? mutation?.shared) {
      this.#shared = new Shared();
      // What power cuts and the like take away cannot be judged: half of the runs are without.
      if (seed % 2 === 1) this.#aloneMs ??= SHARED_ALONE_MS;
      holdWritesUp(this.cluster);
    }
    this.#plant = mutation?.plant;
    mutation?.prepare?.(this.cluster);
  }

  /** @throws Error what is wrong, with the seed */
  async run(): Promise<SimulationResult> {
    const uproot = this.#plant?.();
    try {
      await this.#run();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new Error(`seed ${this.world.seed} at ${this.world.time.now().toFixed(0)} ms: ${text}`, {
        cause: error,
      });
    } finally {
      uproot?.();
    }
    return this.#result();
  }

  async #run(): Promise<void> {
    const { world, cluster, nemesis } = this;
    const { time } = world;
    // From here on everything runs in a turn of the event loop of its own, whoever has called.
    await world.until(time.now() + 1);
    cluster.start();
    await this.#wait(() => cluster.whole(), FORMATION_MAX_MS, 'the cluster does not form');
    await this.#settled(this.#names.prepare(cluster.clients[0] as ClientMachine), FORMATION_MAX_MS);
    for (const client of cluster.clients) this.#work(client);
    if (this.#aloneMs === undefined) nemesis.start();
    await world.until(time.now() + (this.#aloneMs ?? this.#plan.chaosMs));
    world.trace.note('quiet', undefined);
    nemesis.stop();
    this.#quiet = true;
    for (const worker of this.#workers) worker.stop();
    const deadline = time.now() + QUIET_MAX_MS;
    await this.#wait(() => this.#idle(), QUIET_MAX_MS, 'operations do not end');
    await this.#wait(() => cluster.whole(), deadline - time.now(), 'not all replicas come in-sync');
    await this.#verify(deadline);
  }

  #work(client: ClientMachine): void {
    const id = this.#writers.length + 1;
    this.#writers.push(id);
    const pgs = this.cluster.shape.pgs;
    const shared = this.#shared;
    const workers = shared
      ? [false, true].map((readOnly) => new SharedWorker(client, shared, readOnly))
      : [
          new NamesWorker(client, this.#names, false),
          new NamesWorker(client, this.#names, true),
          new FilesWorker(client, this.#files),
          new LocksWorker(client, this.#locks, id),
          new AttributesWorker(client, this.#attributes),
          new TurnsWorker(client, this.#turns),
          new BlocksWorker(client, id, this.#writers, this.#blocks, pgs),
          new BlocksWorker(client, 0, this.#writers, this.#blocks, pgs),
        ];
    for (const worker of workers) worker.start();
    this.#workers.push(...workers);
  }

  /** The machine of a client is gone for good; a new one comes. */
  #replaceClient(name: string): void {
    const { cluster } = this;
    const at = cluster.clients.findIndex((client) => client.name === name);
    const [dead] = cluster.clients.splice(at, 1);
    if (!dead) return;
    dead.die();
    // With it went what it had not written back.
    this.#unsyncedLost(dead);
    for (let i = this.#workers.length - 1; i >= 0; i--) {
      if (this.#workers[i]?.client === dead) this.#workers.splice(i, 1);
    }
    const client = cluster.addClient(`k${this.#nextClient++}`);
    void client.ready.then(() => {
      if (!this.#quiet) this.#work(client);
    });
  }

  #applied(
    server: number,
    index: number,
    data: Buffer,
    change: ReturnType<NonNullable<Mutation['apply']>> | undefined,
  ): Buffer {
    this.world.trace.note(`apply ${server} ${index}`, undefined);
    this.#guard(() => this.#raft.applied(server, index, data));
    if (index > this.#highest) {
      this.#highest = index;
      const { body } = Command.decode(data);
      if (body?.$case === 'expireSession') this.#sessionOver(body.value.session);
    }
    return change ? change(server, index, data) : data;
  }

  /** A client is shut out: what it has not synced it may not write back any more, though it may have closed the file. */
  #sessionOver(session: number): void {
    this.#shared?.lost(); // its client may have another session by now
    const client = this.cluster.clients.find((each) => each.session.id === session);
    if (!client) return;
    this.#expired++;
    client.shutOuts++;
    this.#unsyncedLost(client);
  }

  /** What a client has changed and not synced may be gone. */
  #unsyncedLost(client: ClientMachine): void {
    this.#locks.cells.powerLost();
    this.#turns.cells.powerLost();
    this.#shared?.lost();
    this.#files.sessionOver(client);
    this.#attributes.sessionOver(client);
  }

  /** What a checker finds ends the run, whoever is asking. */
  #guard(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.world.fail(error as Error);
    }
  }

  /** A metaserver knows that the session has ended. */
  #isOver(session: number): boolean {
    return this.cluster.metas.some(({ state }) => state !== undefined && !state.session(session));
  }

  #idle(): boolean {
    return this.#workers.every((worker) => worker.idle);
  }

  /** Who still works, for a failure's text. */
  #busy(): string {
    const busy = this.#workers.filter((worker) => !worker.idle);
    return busy.map((worker) => `${worker.client.name} ${worker.constructor.name} works, `).join('');
  }

  async #wait(condition: () => boolean, ms: number, what: string): Promise<void> {
    const { world } = this;
    const deadline = world.time.now() + ms;
    while (!condition()) {
      if (world.time.now() >= deadline) {
        throw new Error(`${what} within ${ms.toFixed(0)} ms; ${this.#busy()}${this.cluster.describe()}`);
      }
      await world.until(world.time.now() + 50);
    }
  }

  /** Lets time pass until the promise is settled. */
  async #settled<T>(promise: Promise<T>, ms: number): Promise<T> {
    let over = false;
    const end = (): void => {
      over = true;
    };
    promise.then(end, end);
    await this.#wait(() => over, ms, 'an operation does not end');
    return promise;
  }

  async #verify(deadline: number): Promise<void> {
    const { world, cluster } = this;
    const client = cluster.addClient('reader');
    const left = (): number => deadline - world.time.now();
    await this.#settled(client.ready, left());
    const blocks = new BlocksWorker(client, 0, this.#writers, this.#blocks, cluster.shape.pgs);
    await this.#settled(blocks.readAll(), left());
    await this.#settled(new FilesWorker(client, this.#files).readAll(), left());
    await this.#settled(new TurnsWorker(client, this.#turns).readAll(), left());
    await this.#settled(new AttributesWorker(client, this.#attributes).lookAtAll(), left());
    if (this.#shared) {
      await this.#settled(new SharedWorker(client, this.#shared, true).readAll(), left());
      for (const { name, history } of this.#shared.sound) this.#linear(name, cellsModel, history.operations);
    }
    await this.#agree(() => Promise.resolve(statesDiffer(cluster)));
    await this.#agree(() => replicasDiffer(cluster));
    this.#linear('namespace', namespaceModel, this.#names.history.operations);
    this.#names.registers.forEach((history, i) => {
      this.#linear(`register ${i}`, registerModel, history.operations);
    });
  }

  /** What is still written back may be on its way: the difference must go within a time. */
  async #agree(difference: () => Promise<string | undefined>): Promise<void> {
    const { world } = this;
    const deadline = world.time.now() + AGREE_MAX_MS;
    for (;;) {
      const wrong = await this.#settled(difference(), AGREE_MAX_MS); // stores read while time passes
      if (wrong === undefined) return;
      if (world.time.now() >= deadline) throw new Error(wrong);
      await world.until(world.time.now() + 200);
    }
  }

  #linear<S, I, O>(
    what: string,
    model: Parameters<typeof checkLinearizable<S, I, O>>[0],
    history: readonly Operation<I, O>[],
  ): void {
    let verdict: ReturnType<typeof checkLinearizable<S, I, O>>;
    try {
      verdict = checkLinearizable(model, history);
    } catch (error) {
      if (!(error instanceof UndecidedError)) throw error;
      this.#undecided++;
      return;
    }
    const { ok, longest, stuck } = verdict;
    if (ok) return;
    const text = (op: Operation<I, O>): string =>
      `${op.client} ${op.call}-${op.end} ${JSON.stringify(op.input)} -> ${JSON.stringify(op.output)}`;
    const before = longest.slice(-6).map(text).join('\n  ');
    throw new Error(
      `${what} is not linearizable; after\n  ${before}\ncannot follow\n  ${stuck.map(text).join('\n  ')}`,
    );
  }

  #result(): SimulationResult {
    const { world, nemesis } = this;
    const operations =
      this.#names.history.operations.length +
      this.#names.registers.reduce((sum, { operations: each }) => sum + each.length, 0);
    return {
      seed: world.seed,
      hash: `${world.trace.hash}-${crc32c(Buffer.from(JSON.stringify([...nemesis.counts]))).toString(16)}`,
      virtualMs: world.time.now(),
      messages: world.network.messages,
      operations: operations + this.#blocks.reads + this.#files.cells.reads + (this.#shared?.judged ?? 0),
      elections: this.#raft.elections,
      faults: [...nemesis.counts.values()].reduce((sum, count) => sum + count, 0),
      faultKinds: Object.fromEntries(nemesis.counts),
      reads: this.#blocks.reads + this.#files.cells.reads,
      synced: this.#blocks.synced + this.#files.cells.synced,
      expired: this.#expired,
      repaired: this.cluster.chunks.reduce((sum, { repaired }) => sum + repaired, 0),
      damaged: this.cluster.metas.reduce((sum, { damageFound }) => sum + damageFound, 0),
      undecided: this.#undecided,
    };
  }
}
