import type { Timer } from '../../common/clock.js';
import { EarlyPushes } from '../../proto/early-pushes.js';
import { HoldfastError, toHoldfastError } from '../../proto/errors.js';
import type { HelloReply, Lease, ServerEnvelope } from '../../proto/gen/meta.js';
import { LEASES_PER_ANNOUNCEMENT_MAX } from '../../proto/types.js';
import type { ClientBody, MetaConnection } from './dialer.js';
import { LeaderSearch } from './leader-search.js';
import type { SessionDeps, SessionOptions } from './session-options.js';

/** A server that has not answered Hello, or an announcement of leases, by then is asked again. */
const HELLO_DEADLINE_MS = 3_000;
/** A server sends the session's recalls anew behind the answer to Hello, in as few messages as they fit into. */
const EARLY_PUSHES_MAX = 256;

/** A leader that has taken the session. */
export interface FoundLeader {
  address: string;
  connection: MetaConnection;
  hello: HelloReply;
  /** When Hello was sent, in the clock's milliseconds. */
  sentAt: number;
  /** What it pushed right behind its answer. */
  pushes: ServerEnvelope[];
}

/** See SessionOptions. */
type LeaderFinderOptions = Pick<SessionOptions, 'metaservers' | 'leasesPerAnnouncement'>;

export interface LeaderFinderEvents {
  /** The session's Hello, as it is now. */
  hello(): ClientBody;
  /** What the session holds, for the leader that has answered such a Hello; until it is told, nothing may be granted. */
  leases(): Lease[];
  /** Every other probe is closed. */
  onFound(leader: FoundLeader): void;
  /** A server answered Hello with an error. */
  onRefused(address: string, hello: ClientBody, error: HoldfastError): void;
  onPush(connection: MetaConnection, push: ServerEnvelope): void;
  /** The end of any connection that was found, or is being tried. */
  onEnd(connection: MetaConnection, reason: string): void;
}

/** Says Hello to metaservers until one of them is the leader. Whom and when is LeaderSearch's; here are the streams. */
export class LeaderFinder {
  readonly #deps: SessionDeps;
  readonly #events: LeaderFinderEvents;
  readonly #search: LeaderSearch;
  readonly #leasesPerAnnouncement: number;
  readonly #probes = new Map<string, MetaConnection>();
  readonly #early = new EarlyPushes<MetaConnection, ServerEnvelope>(EARLY_PUSHES_MAX);
  /** Why each address was of no use, last. */
  readonly #failures = new Map<string, string>();
  #found: MetaConnection | undefined;
  #wake: Timer | undefined;
  #wakeAt = Infinity;
  #closed = false;

  constructor(options: LeaderFinderOptions, deps: SessionDeps, events: LeaderFinderEvents) {
    this.#deps = deps;
    this.#events = events;
    this.#search = new LeaderSearch(options.metaservers);
    this.#leasesPerAnnouncement = options.leasesPerAnnouncement ?? LEASES_PER_ANNOUNCEMENT_MAX;
  }

  /** What was tried in vain, for people. */
  get tried(): string {
    const reasons = [...this.#failures].map(([address, reason]) => `${address} (${reason})`);
    return reasons.length > 0 ? reasons.join(', ') : this.#search.addresses.join(', ');
  }

  /** The connection found last is of no use any more: asks everybody. @param hint an address to be asked as well */
  begin(hint?: string): void {
    if (this.#closed) return;
    this.#found = undefined;
    if (hint) this.#search.add([hint]);
    this.#search.begin(this.#deps.clock.now());
    this.#probe();
  }

  close(reason: string): void {
    this.#closed = true;
    this.#wake?.cancel();
    this.#endProbes(reason);
  }

  #probe(): void {
    const { clock, dial } = this.#deps;
    if (this.#closed) return;
    for (const address of this.#search.due(clock.now())) {
      const probe: MetaConnection = dial(address, {
        onPush: (push) => {
          if (probe === this.#found) this.#events.onPush(probe, push);
          else this.#early.keep(probe, push);
        },
        onEnd: (reason) => this.#events.onEnd(probe, reason),
      });
      this.#probes.set(address, probe);
      void this.#greet(address, probe);
    }
    this.#schedule();
  }

  async #greet(address: string, probe: MetaConnection): Promise<void> {
    const hello = this.#events.hello();
    const sentAt = this.#deps.clock.now();
    const answer = await this.#introduce(address, probe, hello).catch(toHoldfastError);
    if (this.#probes.get(address) !== probe) return; // another one won
    this.#probes.delete(address);
    if (answer instanceof HoldfastError) {
      probe.close('not the leader');
      this.#refused(address, hello, answer);
    } else this.#adopt(address, probe, answer, sentAt);
  }

  /** Hello, and behind its answer what is held: the servers that are not the leader are not told. */
  async #introduce(address: string, probe: MetaConnection, hello: ClientBody): Promise<HelloReply> {
    const reply = helloReplyOf(await probe.call(hello, HELLO_DEADLINE_MS));
    if (hello.$case !== 'hello' || !hello.value.leasesFollow || this.#probes.get(address) !== probe)
      return reply;
    const leases = this.#events.leases();
    const count = this.#leasesPerAnnouncement;
    for (let from = 0, last = false; !last; from += count) {
      last = from + count >= leases.length;
      const value = { leases: leases.slice(from, from + count), last };
      await probe.call({ $case: 'announce', value }, HELLO_DEADLINE_MS);
    }
    return reply;
  }

  #refused(address: string, hello: ClientBody, error: HoldfastError): void {
    const { clock, log } = this.#deps;
    this.#failures.set(address, error.message);
    log.debug({ address, error: error.message, hint: error.leaderHint }, 'metaserver refused');
    this.#events.onRefused(address, hello, error);
    this.#search.failed(address, error.leaderHint, clock.now());
    this.#probe();
  }

  #adopt(address: string, connection: MetaConnection, hello: HelloReply, sentAt: number): void {
    this.#search.end();
    this.#search.add(hello.metaservers);
    this.#endProbes('another server is the leader');
    this.#failures.clear();
    this.#found = connection;
    this.#events.onFound({ address, connection, hello, sentAt, pushes: this.#early.take(connection) });
  }

  #endProbes(reason: string): void {
    const probes = [...this.#probes.values()];
    this.#probes.clear();
    for (const probe of probes) probe.close(reason);
  }

  #schedule(): void {
    const { clock } = this.#deps;
    const at = this.#search.nextDueAt() ?? Infinity;
    if (at >= this.#wakeAt || this.#closed) return;
    this.#wake?.cancel();
    this.#wakeAt = at;
    this.#wake = clock.after(Math.max(0, at - clock.now()), () => {
      this.#wakeAt = Infinity;
      this.#probe();
    });
  }
}

/** @throws HoldfastError PROTOCOL on any other answer */
function helloReplyOf({ body }: ServerEnvelope): HelloReply {
  if (body?.$case !== 'hello') throw new HoldfastError('PROTOCOL', 'Hello was not answered');
  return body.value;
}
