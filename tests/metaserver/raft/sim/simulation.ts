import { assert } from '../../../../common/assert.js';
import { createPrng, type Prng } from '../../../../common/prng.js';
import { confOfEntry, EMPTY_CONF } from '../../../../metaserver/raft/confchange.js';
import type { RaftConfState, RaftMessage } from '../../../../metaserver/raft/types.js';
import { type MemberProgress, nextMembershipStep } from '../../../../metaserver/replica/membership.js';
import { type RaftMember, RaftMessageType } from '../../../../proto/gen/raft.js';
import type { MemoryLog } from '../memory-log.js';
import { Checker } from './checker.js';
import { EventQueue } from './event-queue.js';
import { SimServer } from './server.js';

const CONFIG = {
  electionMs: 150,
  heartbeatMs: 30,
  deferMs: 0,
  patienceMs: 8,
  // Small enough that batches are cut and windows fill.
  maxAppendBytes: 300,
  maxInflightBytes: 1000,
  maxUncommittedBytes: 4000,
};
/** In every other cluster entries wait for who is not needed. */
const DEFER_MS = 25;
const FAULTY_MS = 2500;
/** Without faults: first with clients, then without. */
const CALM_MS = 700;
const QUIET_MS = 1300;
/** Half of the clusters are quick, so that an election and a commit fit into a lease; the others are slow. */
const QUICK = { delayMs: 1, persistMs: 1 };
const SLOW = { delayMs: 8, persistMs: 12 };
const SLOW_DISK_FACTOR = 6;
const SLOW_DISK_CHANCE = 0.15;
const RARE_DELAY_MS = 600;
const SNAPSHOT_MS = 40;

const STEWARD_MS = 40;

function describe(id: number, place: number): RaftMember {
  return { id, server: place, diskUuid: `disk-${id}`, address: '' };
}

/** No configuration stands in the log that could be taken back. */
function isSettled(log: MemoryLog, commit: number): boolean {
  for (let i = commit + 1; i <= log.lastIndex(); i++) {
    const entry = log.entry(i);
    if (entry && confOfEntry(entry)) return false;
  }
  return true;
}

export interface SimOptions {
  seed: number;
  /** Servers in the first configuration. */
  voters: number;
  /** Servers that exist; the others may join by a change of membership. */
  servers: number;
  /**
   * Servers come back with empty disks, as long as a majority of the voters keeps theirs. replaced: as another member, which
   * the leader takes in (and nobody else changes the membership). amnesia: as the one that they were, which is wrong.
   */
  wipes?: 'replaced' | 'amnesia';
}

export interface SimResult {
  elections: number;
  committed: number;
  reads: number;
  wipes: number;
}

/** One run: a cluster, a hostile network, clients. Everything follows from the seed. */
export class Simulation {
  readonly #queue = new EventQueue();
  readonly #prng: Prng;
  readonly #checker = new Checker();
  /** By place; a server whose disk was lost is another one at the same place. */
  readonly #servers: SimServer[] = [];
  readonly #places = new Map<number, number>();
  #wipes = 0;
  #nextId: number;
  /** Directed links on which messages vanish: `from * 100 + to`. */
  readonly #cut = new Set<number>();
  readonly #maxDelayMs: number;
  readonly #persistMs: number;
  readonly #first: RaftConfState;
  #drop: number;
  #duplicate: number;
  #rareDelay: number;
  #faulty = true;
  #writing = true;
  /** The leader of that term gets no writes until then: a rival's log stays as good as the others'. */
  #idleUntilMs = 0;
  #idleTerm = 0;
  #context = 0;
  #proposal = 0;

  constructor(private readonly options: SimOptions) {
    const prng = createPrng(options.seed);
    this.#prng = prng;
    this.#drop = prng.float() < 0.5 ? 0 : prng.float() * 0.2;
    this.#duplicate = prng.float() < 0.5 ? 0 : prng.float() * 0.1;
    this.#rareDelay = prng.float() < 0.5 ? 0 : prng.float() * 0.05;
    const { delayMs, persistMs } = prng.float() < 0.5 ? QUICK : SLOW;
    this.#maxDelayMs = delayMs;
    const voters = Array.from({ length: options.voters }, (_, i) => i + 1);
    this.#first = { ...EMPTY_CONF, voters, roster: voters.map((id) => describe(id, id)) };
    this.#checker.founded(voters);
    this.#persistMs = persistMs;
    this.#nextId = options.servers + 1;
    for (let id = 1; id <= options.servers; id++) {
      this.#servers.push(this.#make(id, id, id <= options.voters ? this.#first : EMPTY_CONF));
    }
  }

  /** A server with an empty disk. */
  #make(id: number, place: number, conf: RaftConfState): SimServer {
    const prng = this.#prng;
    this.#places.set(id, place);
    const send = (message: RaftMessage) => this.#send(message);
    const diskMs = prng.float() < SLOW_DISK_CHANCE ? this.#persistMs * SLOW_DISK_FACTOR : this.#persistMs;
    const deferMs = this.options.seed % 2 === 0 ? DEFER_MS : 0;
    return new SimServer(id, { ...CONFIG, deferMs }, diskMs, conf, this.#queue, prng, this.#checker, send);
  }

  servers(): readonly SimServer[] {
    return this.#servers;
  }

  /** @throws AssertionError when a property does not hold */
  run(): SimResult {
    for (const server of this.#servers) server.start();
    this.#client();
    this.#nemesis();
    if (this.options.wipes) this.#steward();
    this.#queue.runUntil(FAULTY_MS);
    this.#calm();
    this.#queue.runUntil(FAULTY_MS + CALM_MS);
    this.#writing = false;
    this.#queue.runUntil(FAULTY_MS + CALM_MS + QUIET_MS);
    this.#checkQuiet();
    const { elections, maxCommitted, readsAnswered } = this.#checker;
    return { elections, committed: maxCommitted, reads: readsAnswered, wipes: this.#wipes };
  }

  // Network.

  #send(message: RaftMessage): void {
    const prng = this.#prng;
    this.#noteVote(message);
    const isLost = prng.float() < this.#drop;
    if (message.type === RaftMessageType.RAFT_SNAPSHOT) {
      this.#sendSnapshot(message, isLost);
      return;
    }
    if (isLost) return;
    this.#deliver(message, this.#delayMs());
    if (prng.float() < this.#duplicate) this.#deliver(message, this.#delayMs());
  }

  #noteVote({ type, from, to, term, reject }: RaftMessage): void {
    const place = this.#places.get(from)!;
    if (type === RaftMessageType.RAFT_VOTE) this.#checker.voted(place, from, term, from);
    if (type === RaftMessageType.RAFT_VOTE_RESPONSE && !reject) this.#checker.voted(place, from, term, to);
  }

  #delayMs(): number {
    const prng = this.#prng;
    const isRare = prng.float() < this.#rareDelay;
    return 0.1 + prng.float() * (isRare ? RARE_DELAY_MS : this.#maxDelayMs);
  }

  #deliver(message: RaftMessage, delayMs: number): void {
    this.#queue.after(delayMs, () => {
      if (this.#cut.has(message.from * 100 + message.to)) return;
      // The receiver owns what it decodes; entries themselves never change.
      const copy = { ...message, entries: message.entries.slice() };
      this.#server(message.to)?.input((node, nowMs) => node.step(copy, nowMs));
    });
  }

  #sendSnapshot(message: RaftMessage, isLost: boolean): void {
    const { from, to } = message;
    this.#queue.after(this.#prng.float() * SNAPSHOT_MS, () => {
      const receiver = this.#server(to);
      const ok = !isLost && !this.#cut.has(from * 100 + to) && receiver?.alive === true;
      if (ok) receiver.input((node, nowMs) => node.step(message, nowMs));
      this.#server(from)?.input((node) => node.reportSnapshot(to, ok));
    });
  }

  /** Undefined: that member's disk was lost. */
  #server(id: number): SimServer | undefined {
    return this.#servers.find((server) => server.id === id);
  }

  // Clients.

  #client(): void {
    const prng = this.#prng;
    for (const server of this.#servers) {
      if (!server.leads && prng.float() < 0.95) continue;
      const isIdle = this.#queue.nowMs < this.#idleUntilMs && server.term === this.#idleTerm;
      if (this.#writing && !isIdle && prng.float() < 0.5) this.#propose(server);
      if (prng.float() < 0.5) this.#read(server);
    }
    this.#queue.after(prng.float() * 20, () => this.#client());
  }

  #propose(server: SimServer): void {
    const data = Array.from({ length: 1 + this.#prng.int(4) }, () => {
      const item = Buffer.alloc(4 + this.#prng.int(60));
      item.writeUInt32LE(++this.#proposal);
      return item;
    });
    server.input((node, nowMs) => void node.propose(data, nowMs));
  }

  #read(server: SimServer): void {
    const context = ++this.#context;
    // The request may wait in the socket of a paused server: it began now.
    this.#checker.readInvoked(context);
    server.input((node, nowMs) => node.readIndex(context, nowMs));
  }

  // Faults.

  #nemesis(): void {
    if (!this.#faulty) return;
    const prng = this.#prng;
    const server = this.#servers[prng.int(this.#servers.length)]!;
    const leader = this.#servers.find((s) => s.leads) ?? server;
    const victim = prng.float() < 0.5 ? leader : server;
    const faults: (() => void)[] = [
      () => this.#crash(victim),
      () => this.#pause(victim),
      () => this.#partition(),
      () => this.#isolate(victim),
      () => this.#heal(),
      () => this.#heal(),
      () => this.#heal(),
      () => this.#breakLink(leader.id, server.id, prng.float() < 0.7, prng.float() < 0.7),
      () => this.#breakLeader(leader),
      () => this.#transfer(leader, server),
      () => this.#usurp(leader, server),
      () =>
        this.options.wipes
          ? this.#wipe(victim)
          : leader.input((node, nowMs) => void node.proposeConfChange(this.#randomConf(), nowMs)),
    ];
    faults[prng.int(faults.length)]!();
    this.#checker.logMatching(this.#servers);
    this.#queue.after(prng.float() * 180, () => this.#nemesis());
  }

  /** The leader hands over, and may be cut off before it learns what became of it. */
  #transfer(leader: SimServer, heir: SimServer): void {
    leader.input((node, nowMs) => void node.transferLeader(heir.id, nowMs));
    if (this.#prng.float() < 0.5) return;
    this.#queue.after(this.#prng.float() * 2 * this.#maxDelayMs, () => this.#silence(leader));
  }

  /** One follower has missed the leader for long; then the others forget whom they promised what. */
  #usurp(leader: SimServer, rival: SimServer): void {
    this.#idleUntilMs = this.#queue.nowMs + 300;
    this.#idleTerm = leader.term;
    this.#queue.after(50, () => this.#breakLink(rival.id, leader.id, true, false));
    this.#queue.after(200, () => {
      if (!this.#faulty) return;
      this.#silence(leader);
      for (const server of this.#servers) {
        if (server === leader || server === rival || !server.alive || this.#prng.float() < 0.3) continue;
        server.crash();
        this.#restart(server);
      }
    });
  }

  /** Cuts a server off without a word. */
  #silence(server: SimServer): void {
    if (!this.#faulty) return;
    for (const { id } of this.#servers) {
      this.#cut.add(server.id * 100 + id);
      this.#cut.add(id * 100 + server.id);
    }
  }

  #crash(server: SimServer): void {
    if (!server.alive) return;
    server.crash();
    const isNoticed = this.#prng.float() < 0.7;
    for (const other of this.#servers) {
      if (isNoticed) this.#queue.after(this.#prng.float() * 3, () => this.#lose(other, server.id));
    }
    const downMs = this.#prng.float() * (this.#prng.float() < 0.3 ? 10 : 500);
    this.#queue.after(downMs, () => {
      if (!server.alive) this.#restart(server);
    });
  }

  #restart(server: SimServer): void {
    server.start();
    for (const other of this.#servers) other.input((node, nowMs) => node.peerReachable(server.id, nowMs));
  }

  #lose(server: SimServer, peer: number): void {
    if (server.id !== peer) server.input((node, nowMs) => node.peerUnreachable(peer, nowMs));
  }

  #pause(server: SimServer): void {
    if (!server.alive || server.paused) return;
    server.pause();
    this.#queue.after(this.#prng.float() * 500, () => {
      if (!server.paused) return;
      // A paused leader that wakes up may be asked before it hears anything.
      server.resume();
      if (this.#prng.float() < 0.7) this.#read(server);
    });
  }

  /** Both directions vanish; each side may or may not be told. */
  #breakLink(a: number, b: number, tellA: boolean, tellB: boolean): void {
    if (a === b || !this.#faulty) return;
    if (this.#prng.float() < 0.8) this.#cut.add(a * 100 + b);
    if (this.#prng.float() < 0.8) this.#cut.add(b * 100 + a);
    const [one, other] = [this.#server(a), this.#server(b)];
    if (tellA && one) this.#lose(one, b);
    if (tellB && other) this.#lose(other, a);
  }

  /** Every follower sees the leader's connection break; the leader lives, and does not notice. */
  #breakLeader(leader: SimServer): void {
    for (const { id } of this.#servers) this.#breakLink(leader.id, id, false, true);
  }

  #isolate(server: SimServer): void {
    const isTold = this.#prng.float() < 0.5;
    for (const { id } of this.#servers) this.#breakLink(server.id, id, isTold, isTold);
  }

  #partition(): void {
    const side = new Set(this.#servers.filter(() => this.#prng.float() < 0.5).map((s) => s.id));
    const isTold = this.#prng.float() < 0.5;
    for (const a of side) {
      for (const { id } of this.#servers) if (!side.has(id)) this.#breakLink(a, id, isTold, isTold);
    }
  }

  #heal(): void {
    this.#cut.clear();
    for (const a of this.#servers) {
      for (const b of this.#servers) {
        if (a !== b && b.alive) a.input((node, nowMs) => node.peerReachable(b.id, nowMs));
      }
    }
  }

  #randomConf(): RaftConfState {
    const voters: number[] = [];
    const learners: number[] = [];
    for (const { id } of this.#servers) {
      const dice = this.#prng.float();
      if (dice < 0.6) voters.push(id);
      else if (dice < 0.8) learners.push(id);
    }
    return { voters, votersOutgoing: [], learners, roster: [] };
  }

  // Lost disks.

  /**
   * A voter loses its disk, if no configuration that anybody holds has lost one yet: then each of them keeps a majority.
   * Nothing changes just now, so that no other configuration is on its way.
   */
  #wipe(victim: SimServer): void {
    const isIntact = (id: number): boolean => this.#server(id) !== undefined;
    const isWhole = this.#servers.every(({ alive, node, log }) => {
      if (!alive) return false;
      const { commit, conf } = node.status();
      return [...conf.voters, ...conf.votersOutgoing].every(isIntact) && isSettled(log, commit);
    });
    if (!isWhole || !this.#servers.some((server) => server.leads)) return;
    this.#wipes++;
    victim.crash();
    const place = this.#places.get(victim.id)!;
    const isForgetful = this.options.wipes === 'amnesia';
    const id = isForgetful ? victim.id : this.#nextId++;
    const next = this.#make(id, place, isForgetful ? this.#first : EMPTY_CONF);
    // Its log is looked at also while it is down.
    next.start();
    next.crash();
    this.#servers[place - 1] = next;
    for (const other of this.#servers) {
      if (other !== next) this.#queue.after(this.#prng.float() * 3, () => this.#lose(other, victim.id));
    }
    this.#queue.after(this.#prng.float() * 200, () => {
      if (!next.alive) this.#restart(next);
    });
  }

  /** What the replica's steward does, by the same rules. */
  #steward(): void {
    for (const leader of this.#servers) {
      if (!leader.leads || leader.paused) continue;
      const { conf, commit, lastIndex, peers } = leader.node.status();
      const limitMs = this.#queue.nowMs - 2 * CONFIG.electionMs;
      const progress = new Map<number, MemberProgress>(
        peers.map(({ id, match, lastActiveMs }) => [id, { match, alive: lastActiveMs > limitMs }]),
      );
      progress.set(leader.id, { match: lastIndex, alive: true });
      const alive = this.#servers.filter((server) => server.alive);
      const present = alive.map(({ id }) => describe(id, this.#places.get(id)!));
      const nobody = new Set<number>();
      const asked = { joining: nobody, leaving: nobody };
      const step = nextMembershipStep({ conf, self: leader.id, commit, progress, present, ...asked });
      if (step?.kind !== 'change') continue;
      leader.input((node, nowMs) => void node.proposeConfChange(step.conf, nowMs));
    }
    this.#queue.after(STEWARD_MS, () => this.#steward());
  }

  // The end: all faults cease, and the cluster must work again.

  #calm(): void {
    this.#faulty = false;
    this.#drop = 0;
    this.#duplicate = 0;
    this.#rareDelay = 0;
    this.#heal();
    for (const server of this.#servers) {
      if (!server.alive) this.#restart(server);
      if (server.paused) server.resume();
    }
  }

  #checkQuiet(): void {
    this.#checker.logMatching(this.#servers);
    const leaders = this.#servers.filter((server) => server.leads);
    assert(leaders.length === 1, `one server leads in the end, not ${leaders.map((s) => s.id)}`);
    const status = leaders[0]!.node.status();
    const { voters, votersOutgoing, learners } = status.conf;
    assert(votersOutgoing.length === 0, 'joint consensus was left');
    for (const id of [...voters, ...learners]) {
      const server = this.#server(id);
      assert(server, `member ${id} still has its disk: who lost it was replaced`);
      const { applied } = server.machine;
      assert(applied === status.lastIndex, `server ${id} has applied ${applied} of ${status.lastIndex}`);
    }
    assert(this.#checker.maxCommitted > 20, `progress was made: ${this.#checker.maxCommitted} entries`);
    assert(this.options.voters === 1 || this.#checker.readsAnswered > 20, 'reads were answered');
  }
}
