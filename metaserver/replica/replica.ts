import { assert } from '../../common/assert.js';
import type { Clock } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';
import type { RpcServices } from '../../proto/rpc.js';
import { makeMessage } from '../raft/messages.js';
import { RaftNode } from '../raft/node.js';
import type {
  HardState,
  RaftConfState,
  RaftEntry,
  RaftSnapshotMeta,
  Ready,
  SoftState,
} from '../raft/types.js';
import { Alarm } from './alarm.js';
import { Applier } from './applier.js';
import {
  checkIdentity,
  FormatFile,
  memberIdOf,
  type ReplicaFormat,
  ReplicaFormatError,
  readFormat,
} from './format.js';
import { Installer } from './installer.js';
import { Leadership, type LeadershipWatcher } from './leadership.js';
import { DEFAULT_KEEP_BYTES, DEFAULT_KEEP_ENTRIES, LogCutter } from './log-cutter.js';
import type { LogBase } from './log-records.js';
import { LogStorage } from './log-storage.js';
import { heirOf } from './membership.js';
import { DEFAULT_ELECTION_MS, type ReplicaOptions, type ReplicaStatus, raftConfig } from './options.js';
import { Outbox } from './outbox.js';
import { Peers } from './peers.js';
import { Persister } from './persister.js';
import { type Placed, Proposals, refusedProposal } from './proposals.js';
import { Reads } from './reads.js';
import { Snapshots } from './snapshots.js';
import type { Command } from './state-machine.js';
import { replicaStatus } from './status.js';
import { Steward } from './steward.js';

export type { ReplicaOptions, ReplicaStatus } from './options.js';

/**
 * One server of the replicated state machine: drives the consensus core with a real log, network and clock.
 *
 * Events (messages, proposals, timers, finished syncs) feed the core and wake the loop; one turn of the loop later it takes
 * what the core wants done. So all that arrives in one turn of the event loop shares one append, one message and one
 * fdatasync. Messages go out while the leader's own fdatasync runs; what must wait for it is sent when it ends.
 */
export class Replica<Result> {
  readonly #options: ReplicaOptions<Result>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #storage: LogStorage;
  readonly #node: RaftNode;
  readonly #peers: Peers;
  readonly #outbox: Outbox;
  readonly #snapshots: Snapshots;
  readonly #installer: Installer;
  readonly #persister: Persister;
  readonly #cutter: LogCutter;
  readonly #steward: Steward;
  readonly #format: FormatFile;
  /** This server's member. */
  readonly #self: number;
  readonly #applier: Applier<Result>;
  readonly #proposals = new Proposals<Result>();
  readonly #reads = new Reads();
  readonly #schedule: (fn: () => void) => void;
  readonly #leadership = new Leadership();
  readonly #alarm: Alarm;
  readonly #appliedWatchers: ((commands: readonly Command[], results: readonly Result[]) => void)[] = [];
  readonly #restoredWatchers: (() => void)[] = [];

  #awake = false;
  #started = false;
  /** Takes no more events: it was closed, or failed. */
  #closed = false;
  #closing: Promise<void> | undefined;
  #appliedIndex: number;
  #appliedTerm: number;

  /**
   * Opens the log, settles it with the state machine, and gets ready; start() joins the cluster.
   * @throws ReplicaFormatError, LogFormatError (not its own), ReplicaDamagedError, LogCorruptError: one line for the operator
   */
  static async open<Result>(options: ReplicaOptions<Result>): Promise<Replica<Result>> {
    const { disk, dir } = options;
    const format = await readFormat(disk, dir);
    if (!format) throw new ReplicaFormatError(`${dir}: not formatted`);
    checkIdentity(dir, format, options);
    const storage = await LogStorage.open({ disk, dir, format, segmentBytes: options.segmentBytes });
    await storage.recover(options.stateMachine.appliedIndex());
    const replica = new Replica(options, format, storage);
    await replica.#snapshots.prepare();
    return replica;
  }

  private constructor(options: ReplicaOptions<Result>, format: ReplicaFormat, storage: LogStorage) {
    const { disk, dir, clock, prng, log, stateMachine } = options;
    this.#options = options;
    this.#clock = clock;
    this.#log = log;
    this.#storage = storage;
    this.#schedule = options.schedule ?? ((fn) => void setImmediate(fn));
    this.#appliedIndex = stateMachine.appliedIndex();
    this.#appliedTerm = storage.term(this.#appliedIndex) ?? 0;
    this.#alarm = new Alarm(clock, () => this.#turn());
    this.#format = new FormatFile(disk, dir, format);
    this.#self = memberIdOf(format.diskUuid);
    this.#node = new RaftNode(raftConfig(this.#self, options), storage, prng, {
      hardState: storage.hardState,
      conf: storage.confAt(this.#appliedIndex),
      applied: this.#appliedIndex,
    });
    this.#peers = new Peers({
      identity: format,
      peers: options.peers,
      present: () => this.#steward.present(),
      clock,
      prng,
      log,
      dial: options.dial,
      events: {
        onMessage: (message) => this.#feed(() => this.#node.step(message, clock.now())),
        onUp: (id) => this.#feed(() => this.#onUp(id)),
        onDown: (id) => this.#feed(() => this.#node.peerUnreachable(id, clock.now())),
        onSnapshot: (from, stream) => this.#snapshots.receive(from, stream),
      },
    });
    this.#steward = new Steward({
      format: this.#format,
      founders: options.peers,
      address: options.address ?? '',
      node: this.#node,
      peers: this.#peers,
      clock,
      log,
      silenceMs: 2 * (options.electionMs ?? DEFAULT_ELECTION_MS),
      notLeader: () => this.#notLeader(),
      serving: () => this.#leadership.servingTerm !== 0,
      untouched: () => storage.lastIndex() === 0 && this.#node.term === 0,
      feed: (event) => this.#feed(event),
      found: (conf) => this.#found(conf),
      onFailure: (error) => this.#fail(error),
    });
    this.#steward.noticeConf();
    this.#outbox = new Outbox({
      self: this.#self,
      clock,
      toPeer: (message) => this.#peers.send(message),
      toSelf: (message) => this.#feed(() => this.#node.step(message, clock.now())),
      toSnapshots: (message) => this.#snapshots.send(message),
    });
    this.#snapshots = new Snapshots({
      disk,
      dir,
      stateMachine,
      clock,
      log,
      openStream: (to) => this.#peers.openStream(to),
      metaAt: (index) => storage.metaAt(index),
      report: (to, ok) => this.#feed(() => this.#node.reportSnapshot(to, ok)),
      install: (meta, term, from, path) => this.#offer(meta, term, from, path),
    });
    this.#persister = new Persister({
      storage,
      format: this.#format,
      send: (messages) => this.#outbox.send(messages),
      durable: ({ index, term }) => this.#node.persisted(index, term),
      feed: (event) => this.#feed(event),
      onFailure: (error) => this.#fail(error),
    });
    this.#installer = new Installer({
      storage,
      stateMachine,
      quiet: () => Promise.all([this.#persister.begin(), this.#cutter.idle(), this.#snapshots.abortSends()]),
    });
    this.#cutter = new LogCutter({
      storage,
      stateMachine,
      keepEntries: options.keepEntries ?? DEFAULT_KEEP_ENTRIES,
      keepBytes: options.keepBytes ?? DEFAULT_KEEP_BYTES,
      limit: () => this.#snapshots.pinned(),
      allowed: () => !this.#closed && !this.#installer.running,
      onFailure: (error) => this.#fail(error),
    });
    this.#applier = new Applier({
      stateMachine,
      clock,
      waitedFor: () => this.#node.role === 'leader',
      schedule: this.#schedule,
      onApplied: (entries, commands, results) => this.#onApplied(entries, commands, results),
      onFailure: (error) => this.#fail(error),
    });
  }

  /** Adds the service for the other servers to an RPC server that does not listen yet. */
  attach(server: RpcServices): void {
    this.#peers.attach(server);
  }

  /** Dials the others and takes part. */
  start(): void {
    assert(!this.#started, 'start is called once');
    this.#started = true;
    this.#peers.start();
    this.#steward.start();
    this.#feed(() => {
      this.#node.tick(this.#clock.now());
      this.#steward.campaignIfNew();
    });
  }

  /**
   * Replicates a command and resolves with its result once a majority holds it durably and it is applied here.
   * @param command 1..COMMAND_MAX_BYTES; must not change afterwards
   * @throws HoldfastError NOT_LEADER with leaderHint (the command will never be applied), OVERLOADED (likewise),
   *   UNAVAILABLE: whether it will be applied is unknown
   */
  propose(command: Buffer): Promise<Result> {
    if (this.#closed) return Promise.reject(new HoldfastError('UNAVAILABLE', 'server stops'));
    if (this.#node.role !== 'leader') return Promise.reject(this.#notLeader());
    const result = this.#proposals.add(command);
    this.#wake();
    return result;
  }

  /**
   * True when state read from now on, in this turn of the event loop, is linearizable: this server holds the leader's lease
   * and has applied everything that was ever acknowledged. What is acknowledged in its own term, it has applied itself.
   */
  canReadNow(): boolean {
    const term = this.#leadership.servingTerm;
    return term !== 0 && this.#node.term === term && this.#node.leaseValid(this.#clock.now());
  }

  /**
   * Resolves when state read from then on is at least as new as everything acknowledged before the call. Without a round trip
   * while the lease holds.
   * @throws HoldfastError NOT_LEADER with leaderHint, OVERLOADED, UNAVAILABLE
   */
  readBarrier(): Promise<void> {
    if (this.canReadNow()) return Promise.resolve();
    if (this.#closed) return Promise.reject(new HoldfastError('UNAVAILABLE', 'server stops'));
    if (this.#node.role !== 'leader') return Promise.reject(this.#notLeader());
    const done = this.#reads.add();
    this.#wake();
    return done;
  }

  /**
   * Calls back when this server begins to serve as leader (it has applied all that earlier leaders acknowledged), and at once
   * when it ceases to.
   */
  onLeadership(watcher: LeadershipWatcher): void {
    this.#leadership.watch(watcher);
  }

  /** Calls back after each batch of commands, on every server, before their proposers get the results. */
  onApplied(watcher: (commands: readonly Command[], results: readonly Result[]) => void): void {
    this.#appliedWatchers.push(watcher);
  }

  /** Calls back when a snapshot has replaced the whole state. */
  onRestored(watcher: () => void): void {
    this.#restoredWatchers.push(watcher);
  }

  status(): ReplicaStatus {
    return replicaStatus({
      raft: this.#node.status(),
      self: { server: this.#options.serverId, member: this.#self },
      peers: this.#peers,
      configured: this.#options.peers,
      serving: this.#leadership.servingTerm !== 0,
      problems: this.#steward.problems(),
    });
  }

  /** Who belongs to the cluster, and how to change that. */
  get membership(): Pick<Steward, 'add' | 'remove'> {
    return this.#steward;
  }

  /**
   * Hands the leadership to another server.
   * @param to number of a metaserver; 0: the one that is furthest
   * @throws HoldfastError NOT_LEADER, EINVAL (no such voter), UNAVAILABLE (not within the election time-out)
   */
  async transferLeader(to: number): Promise<void> {
    if (this.#node.role !== 'leader') throw this.#notLeader();
    const target = heirOf(this.#node.status(), to);
    let accepted = false;
    this.#feed(() => {
      accepted = this.#node.transferLeader(target, this.#clock.now());
    });
    if (!accepted)
      throw new HoldfastError('EINVAL', to === 0 ? 'no other voter' : `metaserver ${to} is no other voter`);
    const electionMs = this.#options.electionMs ?? DEFAULT_ELECTION_MS;
    await this.#leadership.handedOver(this.#clock, electionMs * 2);
  }

  /** Stops at once and closes the log; whoever waits gets UNAVAILABLE. The state machine stays open. */
  close(): Promise<void> {
    if (!this.#closed) this.#stop(new HoldfastError('UNAVAILABLE', 'server stops'));
    this.#closing ??= this.#release();
    return this.#closing;
  }

  async #release(): Promise<void> {
    await this.#snapshots.close();
    await this.#cutter.idle();
    await this.#installer.running;
    // Nothing that was promised depends on it: whatever was acknowledged is durable already.
    await this.#storage
      .close()
      .catch((error: unknown) => this.#log.error({ err: error }, 'the log was not closed cleanly'));
  }

  #stop(error: HoldfastError): void {
    this.#closed = true;
    this.#alarm.cancel();
    this.#applier.stop();
    this.#steward.close();
    this.#outbox.close();
    this.#peers.close();
    this.#proposals.rejectAll(error);
    this.#reads.rejectAll(error);
    this.#leadership.stop();
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.#log.error({ err: error }, 'replica failed');
    this.#stop(new HoldfastError('UNAVAILABLE', 'server failed'));
    this.#options.onFatal(error);
  }

  #notLeader(): HoldfastError {
    const error = new HoldfastError('NOT_LEADER');
    const leader = this.#node.conf.roster.find(({ id }) => id === this.#node.leader);
    if (leader && leader.id !== this.#self) error.leaderHint = this.#peers.addressOf(leader.server);
    return error;
  }

  #onUp(member: number): void {
    this.#node.peerReachable(member, this.#clock.now());
    this.#steward.campaignIfNew();
    this.#steward.check();
  }

  /** The first configuration of the cluster, now that the format file has it. */
  #found(conf: RaftConfState): void {
    this.#storage.found(conf);
    this.#node.found(conf, this.#clock.now());
    this.#steward.campaignIfNew();
  }

  /** Hands an event to the core. What it throws is a broken invariant: going on could break more. */
  #feed(event: () => void): void {
    if (this.#closed) return;
    try {
      event();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#wake();
  }

  #wake(): void {
    if (this.#awake || this.#closed || !this.#started) return;
    this.#awake = true;
    this.#schedule(() => {
      this.#awake = false;
      this.#turn();
    });
  }

  /** One turn: the clock first, so that what a pause has ended is known before anything is answered. */
  #turn(): void {
    if (this.#closed) return;
    try {
      this.#node.tick(this.#clock.now());
      this.#proposals.place((batch) => this.#place(batch));
      this.#reads.ask((context) => this.#node.readIndex(context, this.#clock.now()));
      while (!this.#installer.running && !this.#closed && this.#node.hasReady())
        this.#handle(this.#node.ready());
      this.#steward.noticeConf();
      if (!this.#closed) this.#alarm.setAt(this.#node.nextDeadlineMs());
    } catch (error) {
      this.#fail(error);
    }
  }

  #place(batch: Buffer[]): Placed {
    const placed = this.#node.propose(batch, this.#clock.now());
    if (placed === 'not-leader') return this.#notLeader();
    if (typeof placed === 'string') return refusedProposal(placed);
    return placed;
  }

  #handle(ready: Ready): void {
    const hardState = ready.hardState ?? this.#storage.hardState;
    if (ready.snapshot) {
      assert(ready.entries.length === 0 && ready.committed.length === 0, 'a snapshot comes alone');
      this.#install(ready.snapshot, ready, hardState);
      return;
    }
    this.#outbox.send(ready.messages);
    this.#persister.persist(ready, hardState);
    if (ready.softState) this.#onSoftState(ready.softState, hardState.commit);
    if (ready.committed.length > 0) this.#applier.push(ready.committed);
    if (ready.readStates.length > 0) {
      this.#reads.confirmed(ready.readStates, () => this.#notLeader());
      this.#reads.applied(this.#appliedIndex);
    }
  }

  #onSoftState({ role, term, leader }: SoftState, commit: number): void {
    this.#log.debug({ role, term, leader }, 'role');
    if (this.#leadership.update(role === 'leader' ? term : 0)) {
      this.#log.info({ term, leader }, 'no longer leader');
      this.#proposals.rejectAfter(commit, new HoldfastError('UNAVAILABLE', 'leadership lost'));
      void this.#snapshots.abortSends();
    }
    if (role === 'leader') this.#applier.hurry();
    this.#serveIfReady();
  }

  #serveIfReady(): void {
    if (this.#leadership.applied(this.#appliedTerm)) this.#log.info({ term: this.#appliedTerm }, 'leader');
  }

  #onApplied(entries: readonly RaftEntry[], commands: readonly Command[], results: readonly Result[]): void {
    const last = entries.at(-1) as RaftEntry;
    this.#appliedIndex = last.index;
    this.#appliedTerm = last.term;
    if (commands.length > 0) {
      this.#storage.setSnapshotIndex((commands.at(-1) as Command).index);
      for (const watcher of this.#appliedWatchers) watcher(commands, results);
    }
    this.#node.applied(last.index);
    this.#proposals.answer(entries, commands, results);
    this.#serveIfReady();
    this.#reads.applied(last.index);
    this.#cutter.poke();
    this.#wake();
  }

  /** Offers a received snapshot to the core, which may know better. Resolves with the reason when it is not taken. */
  async #offer(meta: LogBase, term: number, from: number, path: string): Promise<string | undefined> {
    if (this.#closed) return 'server stops';
    const message = makeMessage(RaftMessageType.RAFT_SNAPSHOT, from, this.#self, term);
    message.snapshot = meta;
    const refused = this.#installer.offer(meta, path, () => {
      this.#feed(() => this.#node.step(message, this.#clock.now()));
      this.#turn();
    });
    if (refused !== undefined) return refused;
    if (!this.#installer.running) return 'the snapshot is not needed';
    await this.#installer.running;
    return this.#closed ? 'server stops' : undefined;
  }

  #install(taken: RaftSnapshotMeta, ready: Ready, hardState: HardState): void {
    this.#outbox.send(ready.messages);
    if (ready.softState) this.#onSoftState(ready.softState, 0);
    this.#applier.clear();
    this.#installer.install(taken, hardState, (meta, error) => {
      if (error !== undefined) this.#fail(error);
      else this.#onInstalled(meta, ready.messagesAfterPersist);
      this.#wake();
    });
  }

  #onInstalled(meta: LogBase, messages: readonly RaftMessage[]): void {
    this.#log.info({ index: meta.index, term: meta.term }, 'snapshot installed');
    this.#appliedIndex = meta.index;
    this.#appliedTerm = meta.term;
    if (this.#closed) return;
    this.#node.persisted(meta.index, meta.term);
    this.#node.applied(meta.index);
    this.#outbox.send(messages);
    for (const watcher of this.#restoredWatchers) watcher();
  }
}
