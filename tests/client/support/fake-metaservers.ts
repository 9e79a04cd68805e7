import type {
  ClientBody,
  MetaConnection,
  MetaConnectionEvents,
  MetaDialer,
} from '../../../client/meta/dialer.js';
import type { Clock } from '../../../common/clock.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { type ErrorName, errorCode, errorFromCode, HoldfastError } from '../../../proto/errors.js';
import type { ClusterMap } from '../../../proto/gen/cluster.js';
import {
  Attr,
  type CommandResult,
  type Hello,
  type LeaseAnnouncement,
  type Mutation,
  type MutationReply,
  ServerEnvelope,
} from '../../../proto/gen/meta.js';

interface Stream {
  address: string;
  events: MetaConnectionEvents;
  pending: Set<Deferred<ServerEnvelope>>;
  session: number;
  ended: boolean;
}

/**
 * A group of metaservers behind a dialer: one of them leads, mutations are applied exactly once for each session and
 * number, and answers can be lost on purpose.
 */
export class FakeMetaservers {
  readonly addresses: string[];
  /** For the deadlines of calls. */
  clock: Clock | undefined;
  leader: string | undefined;
  /** Servers that accept a stream and never answer. */
  readonly frozen = new Set<string>();
  /** Servers that cannot be reached. */
  readonly dead = new Set<string>();
  /** Followers name the leader. */
  hints = true;
  readonly dials: string[] = [];
  readonly hellos: Hello[] = [];
  readonly announcements: LeaseAnnouncement[] = [];
  /** Called with the number of announcements so far. */
  onAnnouncement: (count: number) => void = () => {};
  /** Mutations in the order of their application: each number once. */
  readonly applied: Mutation[] = [];
  /** All copies that arrived, repetitions included. */
  readonly received: Mutation[] = [];
  readonly openFiles: { opened: number[]; closed: number[] }[] = [];
  keepAlives = 0;
  /** Answers to mutations are applied but not sent while this is set. */
  loseAnswers = false;
  /** Refuses a request with an error, once for each entry. */
  readonly refusals: ErrorName[] = [];
  map: ClusterMap | undefined;
  /** Sent right behind each answer to Hello, in the same read. */
  behindHello: Partial<ServerEnvelope>[] = [];
  readonly #streams = new Set<Stream>();
  readonly #results = new Map<string, number>();
  readonly #sessions = new Map<string, number>();
  #nextSession = 100;
  #nextIno = 10;

  constructor(count: number) {
    this.addresses = Array.from({ length: count }, (_, index) => `meta${index + 1}:1`);
    this.leader = this.addresses[0];
  }

  get streams(): number {
    return this.#streams.size;
  }

  readonly dial: MetaDialer = (address, events) => {
    const stream: Stream = { address, events, pending: new Set(), session: 0, ended: false };
    this.dials.push(address);
    this.#streams.add(stream);
    if (this.dead.has(address)) queueMicrotask(() => this.#end(stream, 'connection refused'));
    return this.#connection(stream);
  };

  /** The server is gone: its streams break, unanswered calls are lost. */
  kill(address: string): void {
    this.dead.add(address);
    for (const stream of [...this.#streams]) if (stream.address === address) this.#end(stream, 'killed');
  }

  elect(address: string | undefined): void {
    this.leader = address;
  }

  /** Forgets all sessions, as after a long silence. */
  expireSessions(): void {
    this.#sessions.clear();
  }

  push(message: Partial<ServerEnvelope>): void {
    for (const stream of this.#streams) {
      if (stream.session > 0) stream.events.onPush({ ...ServerEnvelope.create({}), ...message });
    }
  }

  #connection(stream: Stream): MetaConnection {
    return {
      call: (body, deadlineMs) => {
        const result = deferred<ServerEnvelope>();
        const late = (): void => {
          if (stream.pending.delete(result)) result.reject(new HoldfastError('DEADLINE_EXCEEDED'));
        };
        if (stream.ended) return Promise.reject(new HoldfastError('CONNECTION_LOST'));
        stream.pending.add(result);
        const timer = this.clock?.after(deadlineMs, late);
        if (timer) result.promise.then(timer.cancel, timer.cancel);
        queueMicrotask(() => {
          if (!stream.ended && !this.frozen.has(stream.address)) this.#receive(stream, body, result);
        });
        return result.promise;
      },
      push: (body) => {
        if (body.$case === 'openFiles') this.openFiles.push(body.value);
      },
      close: (reason) => this.#end(stream, reason),
    };
  }

  #receive(stream: Stream, body: ClientBody, result: Deferred<ServerEnvelope>): void {
    if (body.$case === 'mutation') this.received.push(body.value);
    try {
      const answer = this.#answer(stream, body);
      if (body.$case === 'mutation' && this.loseAnswers) return;
      stream.pending.delete(result);
      result.resolve({ ...ServerEnvelope.create({}), id: 1, body: answer });
      if (body.$case === 'hello')
        for (const push of this.behindHello) stream.events.onPush({ ...ServerEnvelope.create({}), ...push });
    } catch (error) {
      stream.pending.delete(result);
      result.reject(error);
    }
  }

  #answer(stream: Stream, body: ClientBody): ServerEnvelope['body'] {
    if (stream.address !== this.leader) {
      const error = errorFromCode(errorCode('NOT_LEADER'));
      if (this.hints && this.leader) error.leaderHint = this.leader;
      throw error;
    }
    if (body.$case === 'hello') return this.#hello(stream, body.value);
    if (body.$case === 'announce') {
      this.onAnnouncement(this.announcements.push(body.value));
      return { $case: 'ok', value: {} };
    }
    if (body.$case === 'keepAlive') {
      this.keepAlives++;
      return { $case: 'ok', value: {} };
    }
    const refusal = this.refusals.shift();
    if (refusal) throw new HoldfastError(refusal);
    if (body.$case === 'read') {
      return { $case: 'read', value: { result: { $case: 'attr', value: Attr.create({}) }, leases: [] } };
    }
    if (body.$case === 'batch') {
      const results = body.value.mutations.map((one) => this.#resultOf(one));
      return { $case: 'batch', value: { results } };
    }
    if (body.$case !== 'mutation') throw new HoldfastError('PROTOCOL');
    return { $case: 'mutation', value: this.#mutate(body.value) };
  }

  #resultOf(one: Mutation): CommandResult {
    return { error: 0, errorText: '', mutation: this.#mutate(one), session: 0, mapChanged: false };
  }

  #hello(stream: Stream, hello: Hello): ServerEnvelope['body'] {
    this.hellos.push(hello);
    let session = this.#sessions.get(hello.clientUuid);
    if (hello.session !== 0 && session !== hello.session) throw new HoldfastError('SESSION_EXPIRED');
    session ??= this.#nextSession++;
    this.#sessions.set(hello.clientUuid, session);
    stream.session = session;
    const metaservers = this.addresses;
    const value = { session, sessionTimeoutMs: 1, clusterId: 'c1', map: this.map, metaservers, serverId: 1 };
    return { $case: 'hello', value };
  }

  #mutate(mutation: Mutation): MutationReply {
    if (![...this.#sessions.values()].includes(mutation.session)) throw new HoldfastError('SESSION_EXPIRED');
    const key = `${mutation.session}/${mutation.seq}`;
    let ino = this.#results.get(key);
    if (ino === undefined) {
      ino = this.#nextIno++;
      this.#results.set(key, ino);
      this.applied.push(mutation);
    }
    const attr = { ...Attr.create({}), ino };
    return {
      result: { $case: 'attr' as const, value: attr },
      created: true,
      unlinkedIno: 0,
      unlinkedNlink: 0,
      parents: [],
      leases: [],
    };
  }

  #end(stream: Stream, reason: string): void {
    if (stream.ended) return;
    stream.ended = true;
    this.#streams.delete(stream);
    for (const result of stream.pending) result.reject(new HoldfastError('CONNECTION_LOST', reason));
    stream.events.onEnd(reason);
  }
}
