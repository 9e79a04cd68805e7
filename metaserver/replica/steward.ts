import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError } from '../../proto/errors.js';
import { RaftAccepted, type RaftMember } from '../../proto/gen/raft.js';
import { isJoint, isVoter, members, normalizeConf } from '../raft/confchange.js';
import type { RaftNode } from '../raft/node.js';
import type { RaftConfState } from '../raft/types.js';
import { type FormatFile, memberIdOf } from './format.js';
import {
  heirOf,
  lostVoters,
  type MemberProgress,
  type MembershipView,
  nextMembershipStep,
  removalProblem,
} from './membership.js';
import type { Peer, Peers } from './peers.js';
import { SlowDisk } from './slow-disk.js';

/** How often the membership is looked at, beside every new connection. */
const CHECK_INTERVAL_MS = 200;
/** Servers that may wait to join, or to leave. */
const WAITING_MAX = 16;

/** How far a change is that an operator asked for. */
export interface MembershipProgress {
  stage: 'waiting' | 'learning' | 'voting' | 'transferring' | 'leaving' | 'done';
  /** Learning: what the joining server has of the commit index. */
  match: number;
  commit: number;
  voters: number;
}

export interface StewardOptions {
  format: FormatFile;
  /** All servers as configured: those that found a new cluster. */
  founders: readonly Peer[];
  /** Where this server wants to be found; empty: where it was. */
  address: string;
  node: RaftNode;
  peers: Peers;
  clock: Clock;
  log: Logger;
  /** A member that was not heard for so long is not alive, ms. */
  silenceMs: number;
  notLeader(): HoldfastError;
  /** True while this server leads and has applied all that was ever acknowledged. */
  serving(): boolean;
  /** Nothing was ever stored or promised on this disk. */
  untouched(): boolean;
  /** Hands an event to the core. */
  feed(event: () => void): void;
  /** The first configuration is durable in the format file: log and core take it. */
  found(conf: RaftConfState): void;
  onFailure(error: unknown): void;
}

/**
 * Looks after who belongs to the cluster: founds a new one, and, on the leader, carries out the steps of nextMembershipStep().
 *
 * A cluster is founded only when all of its configured servers are there and none has ever belonged to one: so a server that
 * lost its disk can never make an empty cluster with others, as long as one of them remembers. The lowest one writes the first
 * configuration, with the disks of all, and the others take it from there; a founder that misses that takes it later.
 */
export class Steward {
  readonly #options: StewardOptions;
  readonly #self: RaftMember;
  readonly #founders: string;
  readonly #joining = new Set<number>();
  readonly #leaving = new Set<number>();
  #conf: RaftConfState | undefined;
  #founding = false;
  readonly #slowDisk = new SlowDisk(CHECK_INTERVAL_MS);
  #timer: Timer | undefined;
  #closed = false;
  #said = '';

  constructor(options: StewardOptions) {
    this.#options = options;
    const { serverId, diskUuid } = options.format.current;
    this.#self = { id: memberIdOf(diskUuid), server: serverId, diskUuid, address: options.address };
    const sorted = [...options.founders].sort((a, b) => a.id - b.id);
    this.#founders = sorted.map(({ id, address }) => `${id}=${address}`).join();
  }

  start(): void {
    this.check();
    this.#arm();
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#closed) return;
    const again = (): void => {
      this.check();
      this.#compareDisks();
      this.#arm();
    };
    this.#timer = this.#options.clock.after(CHECK_INTERVAL_MS, again, { weak: true });
  }

  /** How this server presents itself to those that dial it. */
  present(): RaftAccepted {
    const isNew = this.#isNew;
    return RaftAccepted.create({
      diskUuid: this.#self.diskUuid,
      address: this.#self.address,
      isNew,
      founders: isNew && this.#options.format.current.mayFound ? this.#founders : '',
      founding: this.#options.format.current.conf ?? undefined,
    });
  }

  get #isNew(): boolean {
    return members(this.#options.node.conf).length === 0 && this.#options.untouched();
  }

  /** Takes notice of a configuration that changed. */
  noticeConf(): void {
    const { conf } = this.#options.node;
    if (conf === this.#conf) return;
    this.#conf = conf;
    this.#options.peers.setRoster(conf.roster);
    this.#options.log.info({ members: describe(conf), joint: isJoint(conf) }, 'members');
  }

  /**
   * In a cluster that never had a leader the server with the lowest number need not wait for the election time-out: there is
   * nobody to whom it could have promised anything.
   */
  campaignIfNew(): void {
    const { node, peers, clock } = this.#options;
    if (node.term !== 0 || node.leader !== 0) return;
    const { voters, roster } = node.conf;
    const first = [...roster].sort((a, b) => a.server - b.server)[0];
    const reachable = voters.filter((id) => id === this.#self.id || peers.connected(id));
    if (first?.id !== this.#self.id || reachable.length * 2 <= voters.length) return;
    node.campaign(clock.now());
  }

  /** A leader whose disk holds up what the others have long done makes room for one of them. */
  #compareDisks(): void {
    const { node, clock, log, feed, serving } = this.#options;
    if (!serving()) {
      this.#slowDisk.reset();
      return;
    }
    const status = node.status();
    const now = clock.now();
    if (!this.#slowDisk.look(status, now)) return;
    const heir = heirOf(status, 0);
    if (heir === 0) return;
    const { commit, persisted } = status;
    log.warn({ to: heir, commit, persisted }, 'the disk is slower than those of the others: handing over');
    feed(() => node.transferLeader(heir, now));
  }

  /** Looks whether there is anything to be done. Cheap. */
  check(): void {
    if (this.#closed) return;
    this.#say();
    if (members(this.#options.node.conf).length === 0) void this.#tryToFound();
    if (this.#options.serving()) this.#step();
    else {
      this.#joining.clear();
      this.#leaving.clear();
    }
  }

  // Founding.

  async #tryToFound(): Promise<void> {
    const conf = this.#founding ? undefined : (this.#foundingOfOthers() ?? this.#ownFounding());
    if (!conf) return;
    this.#founding = true;
    const { format, feed, found, onFailure, peers, log, node } = this.#options;
    try {
      if (format.current.conf === null) await format.update({ conf });
      if (this.#closed) return;
      // A leader may have told of a newer configuration meanwhile.
      if (members(node.conf).length === 0) feed(() => found(conf));
      log.info({ members: describe(conf) }, 'cluster founded');
      peers.reintroduce();
    } catch (error) {
      onFailure(error);
    } finally {
      this.#founding = false;
    }
  }

  /** A first configuration that another server has, if it names this very disk. */
  #foundingOfOthers(): RaftConfState | undefined {
    const { conf } = this.#options.format.current;
    if (conf) return conf;
    for (const { answer } of this.#options.peers.present()) {
      const isIn = answer.founding?.roster.some(({ diskUuid }) => diskUuid === this.#self.diskUuid);
      if (answer.founding && isIn) return normalizeConf(answer.founding);
    }
    return undefined;
  }

  /** The first configuration, when it is this server's to make and all are there. */
  #ownFounding(): RaftConfState | undefined {
    const { founders } = this.#options;
    const { server } = this.#self;
    if (!this.#isNew || !this.#options.format.current.mayFound || founders.some(({ id }) => id < server))
      return undefined;
    const present = this.#options.peers.present();
    const roster: RaftMember[] = [];
    for (const { id, address } of founders) {
      const peer = present.find((one) => one.server === id);
      if (id !== server && !(peer?.answer.isNew && peer.answer.founders === this.#founders)) return undefined;
      const diskUuid = peer?.answer.diskUuid ?? this.#self.diskUuid;
      roster.push({ id: memberIdOf(diskUuid), server: id, diskUuid, address });
    }
    if (new Set(roster.map(({ id }) => id)).size < roster.length) {
      this.#options.log.error({}, 'two disks have the same number: remove one of the empty data directories');
      return undefined;
    }
    return normalizeConf({
      voters: roster.map(({ id }) => id),
      votersOutgoing: [],
      learners: [],
      roster,
    });
  }

  // The leader's part.

  #view(): MembershipView {
    const { node, peers, clock, silenceMs } = this.#options;
    const status = node.status();
    const now = clock.now();
    const progress = new Map<number, MemberProgress>();
    for (const { id, match, lastActiveMs } of status.peers) {
      progress.set(id, { match, alive: now - lastActiveMs < silenceMs && peers.connected(id) });
    }
    progress.set(this.#self.id, { match: status.lastIndex, alive: true });
    const known = (id: number): string | undefined =>
      status.conf.roster.find((member) => member.id === id)?.address;
    const present = [this.#self];
    for (const { server, member, address, answer } of peers.present()) {
      const wanted = answer.address || (known(member) ?? address);
      present.push({ id: member, server, diskUuid: answer.diskUuid, address: wanted });
    }
    return {
      conf: status.conf,
      self: this.#self.id,
      commit: status.commit,
      progress,
      present,
      joining: this.#joining,
      leaving: this.#leaving,
    };
  }

  #step(): void {
    const { node, clock, log, feed } = this.#options;
    const step = nextMembershipStep(this.#view());
    if (!step) return;
    feed(() => {
      if (step.kind === 'transfer') {
        node.transferLeader(step.to, clock.now());
        return;
      }
      const placed = node.proposeConfChange(step.conf, clock.now());
      // Refused while another change is under way, or much is uncommitted: the next look tries again.
      if (typeof placed === 'string') return;
      log.info({ why: step.why, members: describe(step.conf), index: placed.index }, 'membership changes');
    });
  }

  /**
   * Takes a server in: as a learner, and as a voter once it has caught up. To be repeated until it is done.
   * @throws HoldfastError NOT_LEADER, OVERLOADED (too many wait)
   */
  add(server: number, address: string): MembershipProgress {
    if (!this.#options.serving()) throw this.#options.notLeader();
    const { conf, commit, progress } = this.#view();
    const member = conf.roster.findLast((one) => one.server === server);
    const result = { match: 0, commit, voters: conf.voters.length };
    if (!member) {
      this.#admit(this.#joining, server);
      this.#options.peers.admit(server, address);
      this.check();
      return { ...result, stage: 'waiting' };
    }
    this.#joining.delete(server);
    this.#options.peers.dismiss(server);
    if (isJoint(conf)) return { ...result, stage: 'voting' };
    if (conf.voters.includes(member.id)) return { ...result, stage: 'done' };
    return { ...result, stage: 'learning', match: progress.get(member.id)?.match ?? 0 };
  }

  /**
   * Lets a server go; the leader hands over first when it is the leader itself. To be repeated until it is done.
   * @throws HoldfastError NOT_LEADER, EINVAL (the last one), EBUSY (the others would be no majority), OVERLOADED
   */
  remove(server: number): MembershipProgress {
    if (!this.#options.serving()) throw this.#options.notLeader();
    const view = this.#view();
    const { conf, commit } = view;
    const result = { match: 0, commit, voters: conf.voters.length };
    this.#joining.delete(server);
    this.#options.peers.dismiss(server);
    if (!conf.roster.some((one) => one.server === server)) {
      this.#leaving.delete(server);
      return { ...result, stage: 'done' };
    }
    if (isJoint(conf)) return { ...result, stage: 'leaving' };
    const problem = removalProblem(view, server);
    if (problem !== undefined) {
      this.#leaving.delete(server);
      const isLast = conf.voters.length === 1;
      throw new HoldfastError(isLast ? 'EINVAL' : 'EBUSY', `metaserver ${server} stays: ${problem}`);
    }
    this.#admit(this.#leaving, server);
    this.check();
    return { ...result, stage: server === this.#self.server ? 'transferring' : 'leaving' };
  }

  #admit(waiting: Set<number>, server: number): void {
    if (waiting.size >= WAITING_MAX && !waiting.has(server)) {
      throw new HoldfastError('OVERLOADED', 'too many changes of the membership wait');
    }
    waiting.add(server);
  }

  // What a person should know.

  /** What keeps this server from taking part, a line each. */
  problems(): string[] {
    const { node, peers } = this.#options;
    const { conf } = node;
    const name = `metaserver-${this.#self.server}`;
    const present = peers.present();
    if (members(conf).length === 0) return [this.#waitingFor(name)];
    if (isVoter(conf, this.#self.id) && node.leader === 0) {
      const lost = lostVoters(
        conf,
        present.map(({ server, member }) => ({ id: member, server, diskUuid: '', address: '' })),
      );
      if (lost.length * 2 >= conf.voters.length) {
        const names = lost.map(({ server }) => `metaserver-${server}`).join(', ');
        const left = conf.voters.length - lost.length;
        return [
          `${name}: the disks of ${names} are gone, ${left} of ${conf.voters.length} voters cannot decide: ` +
            'bring one of the old disks back, or restore a snapshot of the metadata into a new cluster',
        ];
      }
    }
    const rival = present.find(({ server }) => server === this.#self.server);
    return rival ? [`another server at ${rival.address} says that it is ${name}`] : [];
  }

  #waitingFor(name: string): string {
    const { founders, peers } = this.#options;
    const present = peers.present();
    const isFounding = this.#options.format.current.mayFound && present.every(({ answer }) => answer.isNew);
    if (!isFounding || !this.#isNew)
      return `${name} has an empty disk: it waits for the leader to take it in, and votes then`;
    const others = present.find(({ answer }) => answer.founders !== this.#founders);
    if (others)
      return `${name} is new and so is metaserver-${others.server}, which is configured for other servers (${others.answer.founders || 'an existing cluster'})`;
    const missing = founders.filter(
      ({ id }) => id !== this.#self.server && !present.some(({ server }) => server === id),
    );
    const names = missing.map(({ id }) => `metaserver-${id}`).join(', ');
    return `${name} is new: all servers must be there to found a cluster${names ? `, ${names} missing` : ''}`;
  }

  /** Each new problem goes to the log, once. */
  #say(): void {
    const problems = this.problems().join('; ');
    if (problems === this.#said) return;
    this.#said = problems;
    if (problems !== '') this.#options.log.warn({ problem: problems }, 'not taking part');
  }
}

/** server/member of everyone, for the log. */
function describe({ voters, votersOutgoing, learners, roster }: RaftConfState): Record<string, string> {
  const name = (id: number): string =>
    `${roster.find((member) => member.id === id)?.server ?? '?'}/${id.toString(16)}`;
  const names = (ids: readonly number[]): string => ids.map(name).join(' ');
  return { voters: names(voters), outgoing: names(votersOutgoing), learners: names(learners) };
}
