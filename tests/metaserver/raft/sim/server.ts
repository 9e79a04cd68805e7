import { assert } from '../../../../common/assert.js';
import { createPrng, type Prng } from '../../../../common/prng.js';
import { confOfEntry } from '../../../../metaserver/raft/confchange.js';
import { RaftNode } from '../../../../metaserver/raft/node.js';
import type {
  HardState,
  RaftConfig,
  RaftConfState,
  RaftEntry,
  RaftMessage,
  Ready,
} from '../../../../metaserver/raft/types.js';
import { MemoryLog } from '../memory-log.js';
import type { Checker, Observed } from './checker.js';
import type { EventQueue } from './event-queue.js';

const MAX_APPLY_MS = 6;
/** Chance that Readys are taken a little later, so that several events share one. */
const LAZY_CHANCE = 0.2;
const MAX_LAZY_MS = 3;
const FLUSH_CHANCE = 0.1;
const COMPACT_CHANCE = 0.03;

/** The state machine: all it knows is how far it is and the configuration there. */
interface Machine {
  applied: number;
  conf: RaftConfState;
}

interface PersistJob {
  ready: Ready;
  atMs: number;
}

/** A server of the simulation: the shell around a core, with a disk that survives a crash. */
export class SimServer implements Observed {
  node!: RaftNode;
  log!: MemoryLog;
  alive = false;
  paused = false;
  machine: Machine;
  readonly #disk: { log: MemoryLog; hard: HardState; machine: Machine };
  #jobs: PersistJob[] = [];
  #toApply: RaftEntry[] = [];
  #deferred: (() => void)[] = [];
  /** Counts restarts: what was under way before is void. */
  #life = 0;
  #timerMs = Number.POSITIVE_INFINITY;
  #lazy = false;

  constructor(
    readonly id: number,
    private readonly config: Omit<RaftConfig, 'id'>,
    private readonly maxPersistMs: number,
    conf: RaftConfState,
    private readonly queue: EventQueue,
    private readonly prng: Prng,
    private readonly checker: Checker,
    private readonly send: (message: RaftMessage) => void,
  ) {
    this.machine = { applied: 0, conf };
    this.#disk = { log: new MemoryLog(conf), hard: { term: 0, vote: 0, commit: 0 }, machine: this.machine };
  }

  get role(): string {
    return this.node.role;
  }

  get term(): number {
    return this.node.term;
  }

  get leads(): boolean {
    return this.alive && this.node.role === 'leader';
  }

  start(): void {
    this.#life++;
    this.alive = true;
    this.paused = false;
    this.log = this.#disk.log.clone();
    this.machine = this.#disk.machine;
    this.node = new RaftNode({ id: this.id, ...this.config }, this.log, createPrng(this.prng.int(1 << 30)), {
      hardState: this.#disk.hard,
      conf: this.machine.conf,
      applied: this.machine.applied,
    });
    this.input((node, nowMs) => node.tick(nowMs));
  }

  /** Loses everything that is not on disk; of what is on its way there, a prefix arrives. */
  crash(): void {
    const arrived = this.prng.int(this.#jobs.length + 1);
    for (const job of this.#jobs.slice(0, arrived)) this.#toDisk(job.ready);
    this.#life++;
    this.alive = false;
    this.paused = false;
    this.#jobs = [];
    this.#toApply = [];
    this.#deferred = [];
    this.#timerMs = Number.POSITIVE_INFINITY;
    this.#lazy = false;
  }

  pause(): void {
    this.paused = true;
  }

  /** What happened meanwhile is noticed only now, in whatever order. */
  resume(): void {
    this.paused = false;
    const deferred = this.#deferred;
    this.#deferred = [];
    this.#armTimer();
    for (const run of deferred) this.queue.after(this.prng.float() * 2, this.#guarded(run));
  }

  /** Runs in this life of the server, after a pause if there is one; never when it crashes before. */
  #guarded(run: () => void): () => void {
    const life = this.#life;
    const guarded = () => {
      if (this.#life !== life) return;
      if (this.paused) this.#deferred.push(guarded);
      else run();
    };
    return guarded;
  }

  /** Something reaches this server now. */
  input(event: (node: RaftNode, nowMs: number) => void): void {
    if (!this.alive) return;
    this.#guarded(() => {
      event(this.node, this.queue.nowMs);
      this.#pump();
    })();
  }

  #pump(): void {
    if (this.#lazy) return;
    if (this.prng.float() < LAZY_CHANCE) {
      this.#lazy = true;
      const run = this.#guarded(() => {
        this.#lazy = false;
        this.#takeReadys();
      });
      this.queue.after(this.prng.float() * MAX_LAZY_MS, run);
    } else {
      this.#takeReadys();
    }
  }

  #takeReadys(): void {
    while (this.node.hasReady()) this.#takeReady(this.node.ready());
    this.#armTimer();
  }

  #armTimer(): void {
    const deadlineMs = this.node.nextDeadlineMs();
    if (deadlineMs === this.#timerMs || deadlineMs === Number.POSITIVE_INFINITY) return;
    this.#timerMs = deadlineMs;
    const run = this.#guarded(() => {
      if (this.#timerMs !== deadlineMs) return;
      this.#timerMs = Number.POSITIVE_INFINITY;
      this.node.tick(this.queue.nowMs);
      this.#pump();
    });
    this.queue.at(deadlineMs, run);
  }

  #takeReady(ready: Ready): void {
    if (ready.snapshot) {
      this.log.install(ready.snapshot);
      this.machine = { applied: ready.snapshot.index, conf: ready.snapshot.conf! };
    }
    this.log.append(ready.entries);
    this.checker.observe(this, ready);
    for (const message of ready.messages) this.send(message);
    this.#persist(ready);
    if (ready.committed.length > 0) {
      this.#toApply.push(...ready.committed);
      const run = this.#guarded(() => this.#apply());
      this.queue.after(this.prng.float() * MAX_APPLY_MS, run);
    }
  }

  #persist(ready: Ready): void {
    const previousMs = this.#jobs.length > 0 ? this.#jobs[this.#jobs.length - 1]!.atMs : this.queue.nowMs;
    const isEmpty = !ready.mustSync && ready.hardState === undefined;
    const readyMs = this.queue.nowMs + (isEmpty ? 0 : this.prng.float() * this.maxPersistMs);
    const job = { ready, atMs: Math.max(previousMs, readyMs) };
    this.#jobs.push(job);
    const run = this.#guarded(() => this.#persisted(job));
    this.queue.at(job.atMs, run);
  }

  #persisted(job: PersistJob): void {
    // After a pause, completions are noticed in any order; persistence itself is in order.
    while (this.#jobs.includes(job)) {
      const { ready } = this.#jobs.shift()!;
      this.#toDisk(ready);
      const last = ready.entries[ready.entries.length - 1] ?? ready.snapshot;
      if (last) this.node.persisted(last.index, last.term);
      for (const message of ready.messagesAfterPersist) {
        if (message.to === this.id) this.node.step(message, this.queue.nowMs);
        else this.send(message);
      }
    }
    this.#pump();
  }

  #toDisk(ready: Ready): void {
    const disk = this.#disk;
    if (ready.snapshot) {
      disk.log.install(ready.snapshot);
      disk.machine = { applied: ready.snapshot.index, conf: ready.snapshot.conf! };
    }
    disk.log.append(ready.entries);
    if (ready.hardState) disk.hard = ready.hardState;
  }

  #apply(): void {
    const committed = this.#toApply;
    if (committed.length === 0) return;
    this.#toApply = [];
    let { applied, conf } = this.machine;
    for (const entry of committed) {
      // A snapshot may have overtaken.
      if (entry.index <= applied) continue;
      assert(entry.index === applied + 1, `server ${this.id} applies ${entry.index} after ${applied}`);
      applied = entry.index;
      conf = confOfEntry(entry) ?? conf;
    }
    this.machine = { applied, conf };
    const last = committed[committed.length - 1]!.index;
    this.node.applied(Math.min(last, applied));
    this.#maintain();
    this.#pump();
  }

  /** The state machine reaches the disk at any time, and the log is cut behind it. */
  #maintain(): void {
    const disk = this.#disk;
    const isBehind =
      this.machine.applied <= disk.log.lastIndex() && this.machine.applied >= disk.machine.applied;
    if (this.prng.float() < FLUSH_CHANCE && isBehind) disk.machine = this.machine;
    const { applied, conf } = disk.machine;
    if (
      this.prng.float() >= COMPACT_CHANCE ||
      applied < Math.max(this.log.firstIndex(), disk.log.firstIndex())
    )
      return;
    this.log.compact(applied, conf);
    disk.log.compact(applied, conf);
  }
}
