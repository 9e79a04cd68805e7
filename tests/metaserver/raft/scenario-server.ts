import { createPrng } from '../../../common/prng.js';
import { confOfEntry } from '../../../metaserver/raft/confchange.js';
import { RaftNode } from '../../../metaserver/raft/node.js';
import type {
  HardState,
  RaftConfig,
  RaftConfState,
  RaftEntry,
  RaftMessage,
  Ready,
} from '../../../metaserver/raft/types.js';
import { RaftMessageType } from '../../../proto/gen/raft.js';
import { MemoryLog } from './memory-log.js';

/** What scenarios print of an entry: term/index and data. */
export function entryText(entry: RaftEntry): string {
  const conf = confOfEntry(entry);
  const data = conf ? confText(conf) : entry.data.toString();
  return `${entry.term}/${entry.index}${data === '' ? '' : `:${data}`}`;
}

/** (voters)(outgoing voters)[learners], empty ones left out. */
export function confText(conf: RaftConfState): string {
  const outgoing = conf.votersOutgoing.length > 0 ? `&(${conf.votersOutgoing})` : '';
  const learners = conf.learners.length > 0 ? `[${conf.learners}]` : '';
  return `(${conf.voters})${outgoing}${learners}`;
}

/** One line for a message, with the fields that mean something for its type. */
export function messageText(message: RaftMessage): string {
  const { type, from, to, term, index, logTerm, entries, commit, reject } = message;
  const name = RaftMessageType[type]!.replace('RAFT_', '');
  const fields: string[] = [];
  switch (type) {
    case RaftMessageType.RAFT_APPEND:
      fields.push(`prev=${logTerm}/${index}`, `commit=${commit}`);
      if (entries.length > 0) fields.push(`[${entries.map(entryText).join(' ')}]`);
      break;
    case RaftMessageType.RAFT_APPEND_RESPONSE:
      fields.push(reject ? `rejects ${index}, hint ${logTerm}/${message.rejectHint}` : `index=${index}`);
      break;
    case RaftMessageType.RAFT_HEARTBEAT:
      fields.push(`commit=${commit}`, `round=${message.context}`);
      break;
    case RaftMessageType.RAFT_HEARTBEAT_RESPONSE:
      fields.push(`round=${message.context}`);
      break;
    case RaftMessageType.RAFT_VOTE:
    case RaftMessageType.RAFT_PRE_VOTE:
      fields.push(`last=${logTerm}/${index}`);
      if (message.force) fields.push('force');
      break;
    case RaftMessageType.RAFT_SNAPSHOT:
      fields.push(
        `${message.snapshot!.term}/${message.snapshot!.index} ${confText(message.snapshot!.conf!)}`,
      );
      break;
    case RaftMessageType.RAFT_TIMEOUT_NOW:
      break;
    default:
      fields.push(reject ? 'no' : 'yes');
  }
  return `${from}->${to} ${name} term=${term} ${fields.join(' ')}`.trimEnd();
}

/** What a scenario's server reports: a change of role, a message, an effect. */
export type Report = (kind: 'role' | 'message' | 'effect', text: string) => void;

/** The shell of a scenario: it persists and applies at once, unless its disk is held. */
export class ScenarioServer {
  node!: RaftNode;
  log!: MemoryLog;
  alive = false;
  diskHeld = false;
  #disk: { log: MemoryLog; hard: HardState; applied: number; conf: RaftConfState };
  #applied = 0;
  #conf: RaftConfState;
  #pending: Ready[] = [];

  constructor(
    readonly id: number,
    private readonly config: Omit<RaftConfig, 'id'>,
    conf: RaftConfState,
    private readonly send: (message: RaftMessage) => void,
    private readonly report: Report,
  ) {
    this.#conf = conf;
    this.#disk = { log: new MemoryLog(conf), hard: { term: 0, vote: 0, commit: 0 }, applied: 0, conf };
  }

  start(nowMs: number): void {
    const { log, hard, applied, conf } = this.#disk;
    this.log = log.clone();
    this.#applied = applied;
    this.#conf = conf;
    const initial = { hardState: hard, conf, applied };
    this.node = new RaftNode({ id: this.id, ...this.config }, this.log, createPrng(this.id), initial);
    this.alive = true;
    this.node.tick(nowMs);
  }

  crash(): void {
    this.alive = false;
    this.#pending = [];
  }

  /** Takes all Readys. @returns false when there were none */
  process(nowMs: number): boolean {
    if (!this.alive || !this.node.hasReady()) return false;
    while (this.node.hasReady()) {
      this.#takeReady(this.node.ready());
      this.sync(nowMs, false);
    }
    return true;
  }

  #takeReady(ready: Ready): void {
    if (ready.snapshot) {
      this.log.install(ready.snapshot);
      this.#applied = ready.snapshot.index;
      this.#conf = ready.snapshot.conf!;
      this.report('effect', `${this.id} installs snapshot ${ready.snapshot.term}/${ready.snapshot.index}`);
    }
    this.log.append(ready.entries);
    if (ready.softState) {
      const { role, term, leader } = ready.softState;
      this.report('role', `${this.id} is ${role} in term ${term}, leader ${leader}`);
    }
    for (const message of ready.messages) this.send(message);
    for (const { context, index, failed } of ready.readStates) {
      this.report('effect', `${this.id} read ${context} ${failed ? 'fails' : `at ${index}`}`);
    }
    for (const entry of ready.committed) {
      this.#applied = entry.index;
      this.#conf = confOfEntry(entry) ?? this.#conf;
      this.report('effect', `${this.id} applies ${entryText(entry)}`);
    }
    this.node.applied(this.#applied);
    this.#pending.push(ready);
  }

  /** Makes everything durable that was handed out, also on a held disk when `force`. */
  sync(nowMs: number, force: boolean): void {
    if (this.diskHeld && !force) return;
    for (const ready of this.#pending.splice(0)) {
      const disk = this.#disk;
      if (ready.snapshot) {
        disk.log.install(ready.snapshot);
        disk.applied = ready.snapshot.index;
        disk.conf = ready.snapshot.conf!;
      }
      disk.log.append(ready.entries);
      if (ready.hardState) disk.hard = ready.hardState;
      const last = ready.entries[ready.entries.length - 1] ?? ready.snapshot;
      if (last) this.node.persisted(last.index, last.term);
      for (const message of ready.messagesAfterPersist) {
        if (message.to === this.id) this.node.step(message, nowMs);
        else this.send(message);
      }
    }
  }

  /** The state machine is saved, and the log cut behind it. */
  compact(): number {
    this.#disk.applied = this.#applied;
    this.#disk.conf = this.#conf;
    this.log.compact(this.#applied, this.#conf);
    this.#disk.log.compact(this.#applied, this.#conf);
    return this.#applied;
  }
}
