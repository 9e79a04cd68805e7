import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { ClusterMap } from '../../proto/gen/cluster.js';
import type {
  ClientEnvelope,
  CommandResult,
  Hello,
  HelloReply,
  Lease,
  LeaseAnnouncement,
  LeaseReturn,
  LockRequest,
  Mutation,
  MutationBatch,
  QuotaAmount,
  QuotaRules,
  ReadReply,
  ReadRequest,
  ServerEnvelope,
} from '../../proto/gen/meta.js';
import type { RpcStream } from '../../proto/rpc.js';
import { BATCH_MUTATIONS_MAX } from '../../proto/types.js';
import type { LockAnswer } from './lock-service.js';
import type { SessionEntry } from './session-table.js';

/** Requests of one stream that may wait for the log or a read barrier; a further one gets OVERLOADED. */
export const REQUESTS_IN_FLIGHT_MAX = 2048;
/** Entries of one directory page, whatever the client asks for: keeps the answer within the message limit. */
export const DIR_PAGE_ENTRIES_MAX = 4096;

export type Session = SessionEntry<ClientStream>;

/** What a stream asks of the service that accepted it. */
export interface ClientStreamHost {
  now(): number;
  /** Opens or resumes a session and binds it to the stream, which adds the map. @throws HoldfastError the refusal; the stream is ended behind it */
  hello(stream: ClientStream, hello: Hello): Promise<HelloReply>;
  /** More of what the session of `hello` holds. @throws HoldfastError as hello() */
  announce(session: Session, hello: Hello, announcement: LeaseAnnouncement): void;
  map(): ClusterMap;
  quotaRules(): QuotaRules;
  /** Calls exactly one of the two, `run` as soon as a read is linearizable. @returns true when `run` was called already */
  passRead(run: () => void, fail: (error: HoldfastError) => void): boolean;
  /** @returns undefined when it waits for leases: then `again` is called when it is to be tried again. @throws HoldfastError */
  read(session: Session, request: ReadRequest, again: () => void): ReadReply | undefined;
  /** Leases that come with the refusal of a read. */
  leasesOfRefusal(session: Session, request: ReadRequest, error: HoldfastError): Lease[];
  /** Calls exactly one of the two. */
  mutate(
    session: Session,
    mutation: Mutation,
    done: (result: CommandResult) => void,
    fail: (error: HoldfastError) => void,
  ): void;
  mutateBatch(
    session: Session,
    batch: MutationBatch,
    done: (result: CommandResult) => void,
    fail: (error: HoldfastError) => void,
  ): void;
  leaseReturn(session: Session, returned: LeaseReturn): void;
  /** Calls exactly one of the two, or none when the stream ends before. */
  lock(
    session: Session,
    request: LockRequest,
    answer: LockAnswer,
    fail: (error: HoldfastError) => void,
  ): void;
  cancelLock(session: Session, wait: number): void;
  openFiles(session: Session, opened: readonly number[], closed: readonly number[]): void;
  ended(stream: ClientStream, reason: string): void;
}

/**
 * One client's stream: Hello first, then requests, answered in any order. Mutations go into the log in the order in
 * which they arrive, and cannot be taken back: they end with the leadership at the latest, and the stream with them.
 */
export class ClientStream {
  readonly #rpc: RpcStream<ServerEnvelope, ClientEnvelope>;
  readonly #host: ClientStreamHost;
  #session: Session | undefined;
  #greeted = false;
  /** Hello was answered. */
  #welcome = false;
  /** The Hello behind which leases follow, until the last of them is here. */
  #announcing: Hello | undefined;
  /** Nothing is taken any more; what was sent before still goes out. */
  #closed = false;
  #inFlight = 0;
  /** Recalls that wait for the answer to Hello, and to the last announcement. */
  #recalls: Lease[] = [];

  constructor(rpc: RpcStream<ServerEnvelope, ClientEnvelope>, host: ClientStreamHost) {
    this.#rpc = rpc;
    this.#host = host;
    rpc.onEnd((reason) => host.ended(this, reason));
    rpc.onMessage((envelope) => this.#receive(envelope));
  }

  /** Undefined before Hello was accepted. */
  get session(): Session | undefined {
    return this.#session;
  }

  bind(session: Session): void {
    this.#session = session;
  }

  get ended(): boolean {
    return this.#closed || this.#rpc.ended;
  }

  /** Refuses a stream on which nobody has said Hello by now. */
  expectHello(): void {
    if (!this.#greeted) this.refuse(0, new HoldfastError('PROTOCOL', 'no Hello came'));
  }

  pushMap(map: ClusterMap): void {
    if (this.#welcome) this.#answer(0, { $case: 'map', value: map });
  }

  pushQuotaRules(rules: QuotaRules): void {
    if (this.#welcome) this.#answer(0, { $case: 'quotaRules', value: rules });
  }

  /** Asks the client to give back what it has reserved of these quotas and does not need. */
  recallQuota(amounts: QuotaAmount[]): void {
    if (this.#welcome && !this.ended) this.#answer(0, { $case: 'quotaRecall', value: { amounts } });
  }

  /** Asks the client to give leases back; they are asked for again on the session's next stream. */
  recall(leases: Lease[]): void {
    if (this.ended) return;
    if (this.#welcome && !this.#announcing) this.#answer(0, { $case: 'recall', value: { leases } });
    else this.#recalls.push(...leases);
  }

  /** Tells the client that its session is gone, and ends the stream. */
  expire(): void {
    if (this.ended) return;
    this.#answer(0, { $case: 'sessionExpired', value: {} });
    this.#closed = true;
    this.#rpc.end();
  }

  /** Refuses whatever the stream was for, then ends it. */
  refuse(id: number, error: HoldfastError): void {
    if (this.ended) return;
    this.#fail(id, error);
    this.#closed = true;
    this.#rpc.end();
  }

  end(reason: string): void {
    this.#closed = true;
    this.#rpc.destroy(reason);
  }

  #receive(envelope: ClientEnvelope): void {
    const { id, body } = envelope;
    if (this.#closed) return;
    if (!this.#greeted) {
      this.#greeted = true;
      if (body?.$case === 'hello') void this.#hello(id, body.value);
      else this.refuse(id, new HoldfastError('PROTOCOL', 'the first message must be Hello'));
      return;
    }
    const session = this.#session;
    if (!session || !body) {
      this.#fail(id, new HoldfastError('PROTOCOL', session ? 'empty message' : 'no session on this stream'));
      return;
    }
    session.heardAt = this.#host.now();
    if (this.#announcing) {
      this.#announce(envelope, session, this.#announcing);
      return;
    }
    switch (body.$case) {
      case 'read':
        this.#read(envelope, session, body.value);
        break;
      case 'mutation':
        this.#mutate(id, session, body.value);
        break;
      case 'batch':
        this.#mutateBatch(id, session, body.value);
        break;
      case 'keepAlive':
        this.#answer(id, { $case: 'ok', value: {} });
        break;
      case 'openFiles':
        this.#host.openFiles(session, body.value.opened, body.value.closed);
        if (id !== 0) this.#answer(id, { $case: 'ok', value: {} });
        break;
      case 'leaseReturn':
        this.#host.leaseReturn(session, body.value);
        break;
      case 'lock':
        this.#lock(id, session, body.value);
        break;
      case 'cancelLock':
        this.#host.cancelLock(session, body.value.wait);
        break;
      case 'hello':
      case 'announce':
        this.#fail(id, new HoldfastError('PROTOCOL', `unexpected ${body.$case}`));
        break;
    }
  }

  async #hello(id: number, hello: Hello): Promise<void> {
    try {
      const value = await this.#host.hello(this, hello);
      this.#welcome = true;
      if (hello.leasesFollow) this.#announcing = hello;
      // Map and quotas of this very moment: every later one is pushed.
      const [map, quotas] = [this.#host.map(), this.#host.quotaRules()];
      this.#answer(id, { $case: 'hello', value: { ...value, map, quotas } });
      this.#recallHeld();
    } catch (error) {
      this.refuse(id, toHoldfastError(error));
    }
  }

  #announce({ id, body }: ClientEnvelope, session: Session, hello: Hello): void {
    try {
      if (body?.$case !== 'announce') throw new HoldfastError('PROTOCOL', `${body?.$case} amid leases`);
      this.#host.announce(session, hello, body.value);
      if (body.value.last) this.#announcing = undefined;
      this.#answer(id, { $case: 'ok', value: {} });
      this.#recallHeld();
    } catch (error) {
      this.refuse(id, toHoldfastError(error));
    }
  }

  #recallHeld(): void {
    if (this.#announcing || this.#recalls.length === 0) return;
    this.recall(this.#recalls.splice(0));
  }

  #read({ id, deadlineMs }: ClientEnvelope, session: Session, request: ReadRequest): void {
    if (this.#inFlight >= REQUESTS_IN_FLIGHT_MAX) {
      this.#fail(id, new HoldfastError('OVERLOADED'));
      return;
    }
    let waited = false;
    const receivedAt = session.heardAt;
    const isLate = (): boolean => waited && deadlineMs > 0 && this.#host.now() - receivedAt > deadlineMs;
    const settled = (): void => {
      if (waited) this.#inFlight--;
    };
    const waits = (): void => {
      if (waited) return;
      waited = true;
      this.#inFlight++;
    };
    const fail = (error: HoldfastError): void => {
      settled();
      const leases = this.#host.leasesOfRefusal(session, request, error);
      const body: ServerEnvelope['body'] =
        leases.length > 0 ? { $case: 'read', value: { result: undefined, leases } } : undefined;
      this.#fail(id, error, body);
    };
    const run = (): void => {
      try {
        if (isLate()) throw new HoldfastError('DEADLINE_EXCEEDED');
        const value = this.#host.read(session, request, again);
        if (!value) {
          waits();
          return;
        }
        settled();
        this.#answer(id, { $case: 'read', value });
      } catch (error) {
        fail(toHoldfastError(error));
      }
    };
    // Leases were waited for: whether a read is linearizable is asked anew.
    const again = (): void => {
      if (!this.#host.passRead(run, fail)) waits();
    };
    again();
  }

  #mutate(id: number, session: Session, mutation: Mutation): void {
    if (mutation.session !== session.record.id) {
      this.#fail(id, new HoldfastError('PROTOCOL', 'mutation of another session'));
      return;
    }
    if (this.#inFlight >= REQUESTS_IN_FLIGHT_MAX) {
      this.#fail(id, new HoldfastError('OVERLOADED'));
      return;
    }
    this.#inFlight++;
    const done = (result: CommandResult): void => {
      this.#inFlight--;
      this.#settle(id, result);
    };
    const fail = (error: HoldfastError): void => {
      this.#inFlight--;
      this.#fail(id, error);
    };
    this.#host.mutate(session, mutation, done, fail);
  }

  #mutateBatch(id: number, session: Session, batch: MutationBatch): void {
    const { mutations } = batch;
    const foreign = mutations.some((mutation) => mutation.session !== session.record.id);
    if (foreign || mutations.length === 0 || mutations.length > BATCH_MUTATIONS_MAX) {
      this.#fail(id, new HoldfastError('PROTOCOL', `a batch of ${mutations.length} mutations`));
      return;
    }
    if (this.#inFlight >= REQUESTS_IN_FLIGHT_MAX) {
      this.#fail(id, new HoldfastError('OVERLOADED'));
      return;
    }
    this.#inFlight++;
    const done = ({ error, errorText, batch: answer }: CommandResult): void => {
      this.#inFlight--;
      const body: ServerEnvelope['body'] = answer && { $case: 'batch', value: answer };
      this.#rpc.send({ id, error, errorText, leaderHint: '', body });
    };
    const fail = (error: HoldfastError): void => {
      this.#inFlight--;
      this.#fail(id, error);
    };
    this.#host.mutateBatch(session, batch, done, fail);
  }

  /** A lock may be waited for as long as its owner likes: what bounds it is the number of locks of a session. */
  #lock(id: number, session: Session, request: LockRequest): void {
    const fail = (error: HoldfastError): void => this.#fail(id, error);
    const answer: LockAnswer = (error, conflict) => {
      if (error) fail(new HoldfastError(error));
      else this.#answer(id, { $case: 'lock', value: { conflict } });
    };
    this.#host.lock(session, request, answer, fail);
  }

  #settle(id: number, result: CommandResult): void {
    const body: ServerEnvelope['body'] = result.mutation && { $case: 'mutation', value: result.mutation };
    this.#rpc.send({ id, error: result.error, errorText: result.errorText, leaderHint: '', body });
  }

  #answer(id: number, body: ServerEnvelope['body']): void {
    this.#rpc.send({ id, error: 0, errorText: '', leaderHint: '', body });
  }

  #fail(id: number, error: HoldfastError, body?: ServerEnvelope['body']): void {
    const { code, message, leaderHint = '' } = error;
    this.#rpc.send({ id, error: code, errorText: message, leaderHint, body });
  }
}
