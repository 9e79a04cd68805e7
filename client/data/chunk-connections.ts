import { backOffMs } from '../../common/backoff.js';
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { FrameFields, FrameType } from '../../proto/frame-header.js';
import { dialFrames, type Frame, type FrameHello, type Sockets } from '../../proto/frames.js';
import type { ChunkServerInfo } from '../../proto/gen/cluster.js';
import { LINK_CHECK_INTERVAL_MS, LinkWatch } from './link-watch.js';

/** The part of a FrameConnection that requests need. */
export interface FrameLink {
  readonly ended: boolean;
  readonly closed: Promise<string>;
  /** Requests without an answer yet. */
  readonly inFlight: number;
  /** Bytes that wait to be sent. */
  readonly queuedBytes: number;
  /** When bytes last came in, in the clock's milliseconds. */
  readonly lastHeardAt: number;
  /** @throws HoldfastError the reply's status; CONNECTION_LOST, DEADLINE_EXCEEDED, OVERLOADED */
  call(
    fields: FrameFields & { type: FrameType },
    payload: Buffer | Buffer[] | undefined,
    deadlineMs: number,
  ): Promise<Frame>;
  close(reason: string): void;
}

/** Connects and exchanges HELLO. @throws HoldfastError UNAVAILABLE, VERSION, WRONG_CLUSTER */
export type FrameDialer = (host: string, port: number) => Promise<FrameLink>;

/** A connection must be up, HELLO included, within this time. */
const DIAL_TIMEOUT_MS = 2_000;
/** A server that refused is dialled again after this; doubled each time. */
const REDIAL_MIN_MS = 10;
const REDIAL_MAX_MS = 250;

/** Dials over TCP, or what is handed in. Chunkservers send no requests to clients. */
export function frameDialer(
  clock: Clock,
  log: Logger,
  hello: () => FrameHello,
  sockets?: Sockets,
): FrameDialer {
  const handler = (): Promise<never> =>
    Promise.reject(new HoldfastError('PROTOCOL', 'a client serves nothing'));
  let serial = 0;
  return (host, port) => {
    const numbered = { ...hello(), serial: ++serial };
    return dialFrames(host, port, { clock, log, handler, hello: numbered, sockets }, DIAL_TIMEOUT_MS);
  };
}

interface Entry {
  /** Changes when the server moved or lost its disk, and with the session: the old connection is then of no use. */
  identity: string;
  /** What the identity was last found to be that of; saves spelling it out for every request. */
  server: ChunkServerInfo;
  session: number;
  link: FrameLink | undefined;
  dialling: Promise<FrameLink> | undefined;
  failures: number;
  notBefore: number;
}

/**
 * One connection to each chunkserver, dialled when first needed, dropped when the map says that it is down, or when it is
 * silent while somebody waits.
 */
export class ChunkConnections {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #dial: FrameDialer;
  readonly #entries = new Map<number, Entry>();
  readonly #watch = new LinkWatch();
  readonly #watchTimer: Timer;
  readonly #session: () => number;
  #closed = false;

  /** @param session in whose name the dialler says HELLO; another one needs other connections */
  constructor(clock: Clock, log: Logger, dial: FrameDialer, session: () => number = () => 1) {
    this.#clock = clock;
    this.#log = log;
    this.#dial = dial;
    const check = (): void => this.#watch.check(this.#links(), clock.now());
    this.#watchTimer = clock.every(LINK_CHECK_INTERVAL_MS, check, { weak: true });
    this.#session = session;
  }

  /** The connection when it is up. */
  peek(server: ChunkServerInfo): FrameLink | undefined {
    const entry = this.#entries.get(server.id);
    return entry?.link && !entry.link.ended && this.#isOf(entry, server) ? entry.link : undefined;
  }

  #isOf(entry: Entry, server: ChunkServerInfo): boolean {
    const session = this.#session();
    if (entry.server === server && entry.session === session) return true;
    if (entry.identity !== this.#identityOf(server)) return false;
    entry.server = server;
    entry.session = session;
    return true;
  }

  /** @throws HoldfastError UNAVAILABLE when it cannot be reached, or was not a moment ago */
  get(server: ChunkServerInfo): Promise<FrameLink> {
    if (this.#closed) return Promise.reject(new HoldfastError('EIO', 'the mount has ended'));
    const link = this.peek(server);
    if (link) return Promise.resolve(link);
    const identity = this.#identityOf(server);
    let entry = this.#entries.get(server.id);
    if (entry?.identity !== identity) {
      entry?.link?.close('the server moved, or the session is another one');
      const session = this.#session();
      entry = { identity, server, session, link: undefined, dialling: undefined, failures: 0, notBefore: 0 };
      this.#entries.set(server.id, entry);
    }
    if (entry.dialling) return entry.dialling;
    if (this.#clock.now() < entry.notBefore) {
      return Promise.reject(new HoldfastError('UNAVAILABLE', `chunkserver ${server.id} was not reachable`));
    }
    entry.dialling = this.#connect(entry, server);
    return entry.dialling;
  }

  /** Breaks off what a newer map declares dead or elsewhere. */
  mapChanged(servers: ReadonlyMap<number, ChunkServerInfo>): void {
    for (const [id, entry] of this.#entries) {
      const server = servers.get(id);
      if (server?.alive && this.#identityOf(server) === entry.identity) {
        entry.notBefore = 0; // the map vouches for it: try at once
        continue;
      }
      this.#entries.delete(id);
      entry.link?.close('the cluster map says that the server is down');
    }
  }

  close(reason: string): void {
    this.#closed = true;
    this.#watchTimer.cancel();
    for (const entry of this.#entries.values()) entry.link?.close(reason);
    this.#entries.clear();
  }

  *#links(): Generator<FrameLink> {
    for (const { link } of this.#entries.values()) if (link) yield link;
  }

  #identityOf(server: ChunkServerInfo): string {
    return `${server.host}:${server.port}/${server.diskUuid}/${this.#session()}`;
  }

  async #connect(entry: Entry, server: ChunkServerInfo): Promise<FrameLink> {
    try {
      const link = await this.#dial(server.host, server.port);
      if (this.#closed || this.#entries.get(server.id) !== entry) {
        link.close('not wanted any more');
        throw new HoldfastError('UNAVAILABLE', 'the server was dropped meanwhile');
      }
      entry.link = link;
      entry.failures = 0;
      void link.closed.then((reason) => {
        this.#log.debug({ chunkserver: server.id, reason }, 'chunkserver connection ended');
        if (entry.link === link) entry.link = undefined;
      });
      return link;
    } catch (error) {
      const failure = toHoldfastError(error);
      entry.failures++;
      entry.notBefore = this.#clock.now() + backOffMs(entry.failures, REDIAL_MIN_MS, REDIAL_MAX_MS);
      this.#log.debug({ chunkserver: server.id, error: failure.message }, 'chunkserver not reachable');
      throw failure;
    } finally {
      entry.dialling = undefined;
    }
  }
}
