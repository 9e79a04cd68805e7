import type { RecoveryLimits } from '../../../../chunkserver/pg/types.js';
import { REPLICA_TIMEOUT_MS } from '../../../../chunkserver/pg/types.js';
import { createPrng, type Prng } from '../../../../common/prng.js';
import type { ClusterMap } from '../../../../proto/gen/cluster.js';
import { Authority, type SimStream } from './authority.js';
import { SimLink } from './link.js';
import { SimServer } from './server.js';
import { VirtualClock } from './virtual-clock.js';

export interface SimOptions {
  servers: number;
  replicas: number;
  minInSync: number;
  /** Some servers lose unsynced data when they die. */
  powerCuts: boolean;
}

/** Servers, connections and the authority in virtual time. One seed is one exact run. */
export class Simulation {
  readonly prng: Prng;
  readonly clock = new VirtualClock();
  readonly servers: SimServer[];
  readonly authority: Authority;
  readonly limits: RecoveryLimits;
  /** Usual delays of this run: from a quick network to a slow one. */
  readonly networkMs: number;
  readonly diskMs: number;
  /** So many writes come on one that is synced: where few are, more is lost with the power. */
  readonly syncsOneOf: number;
  /** Maps as clients get them. */
  clientMaps: ((map: ClusterMap) => void)[] = [];
  failure: Error | undefined;
  /** Disks that were replaced by empty ones. */
  wipes = 0;
  /** Acknowledged writes that a later SYNC vouched for. */
  provenWrites = 0;
  /** Pairs of servers that cannot talk. */
  readonly #cut = new Set<string>();
  /** Servers that cannot talk to the authority. */
  readonly #isolated = new Set<number>();

  constructor(seed: number, options: SimOptions) {
    this.prng = createPrng(seed);
    const { prng } = this;
    this.limits = {
      listEntries: 1 + prng.int(4),
      pageFetches: 1 + prng.int(3),
      pageBytes: 8 + prng.int(16),
      queueBytes: prng.int(2) ? 600 : 100_000,
    };
    this.networkMs = [1, 3, 12][prng.int(3)]!;
    this.diskMs = [1, 5, 20][prng.int(3)]!;
    this.syncsOneOf = options.powerCuts ? [2, 2, 12][prng.int(3)]! : 2;
    const ids = Array.from({ length: options.servers }, (_, i) => i + 1);
    this.authority = new Authority(this.clock, ids, options.replicas, options.minInSync, (map) => {
      // Some hear late: they go on asking a primary that may not be one any more.
      for (const tell of this.clientMaps)
        this.clock.after(this.delay(this.prng.int(2) ? 40 : 800), () => tell(map));
    });
    this.servers = ids.map((id) => new SimServer(this, id));
    for (const server of this.servers) server.start();
  }

  /** Mostly short, sometimes long. */
  delay(ms: number): number {
    const { prng } = this;
    return prng.int(20) === 0 ? prng.float() * ms * 10 : prng.float() * ms;
  }

  fail(error: Error): void {
    this.failure ??= error;
  }

  server(id: number): SimServer {
    return this.servers[id - 1]!;
  }

  openStream(server: SimServer): SimStream {
    let last = 0;
    const stream: SimStream = {
      server,
      open: true,
      down: (deliver) => {
        last = Math.max(last + 0.001, this.clock.now() + this.delay(2 * this.networkMs));
        server.at(last - this.clock.now(), () => {
          stream.open &&= !this.#isolated.has(server.id);
          if (server.stream === stream && stream.open) deliver();
        });
      },
    };
    return stream;
  }

  readonly #upAt = new WeakMap<SimStream, number>();

  /** From a server to the authority, in order. */
  upstream(stream: SimStream, deliver: () => void): void {
    const last = Math.max(
      (this.#upAt.get(stream) ?? 0) + 0.001,
      this.clock.now() + this.delay(2 * this.networkMs),
    );
    this.#upAt.set(stream, last);
    this.clock.after(last - this.clock.now(), () => {
      stream.open &&= !this.#isolated.has(stream.server.id);
      if (stream.open) deliver();
    });
  }

  // ---- connections

  /** The server keeps a connection open to every other. */
  dial(from: SimServer): void {
    for (const to of this.servers) if (to !== from) this.#dial(from, to);
  }

  #dial(from: SimServer, to: SimServer): void {
    from.at(5 + this.delay(20), () => {
      const linked = [...from.links].some((link) => link.side === 'out' && link.server === to.id);
      if (!from.up || linked) return;
      if (!to.up || to.paused || this.#cut.has(pairOf(from.id, to.id))) {
        from.at(50, () => this.#dial(from, to));
        return;
      }
      this.#connect(from, to);
    });
  }

  #connect(from: SimServer, to: SimServer): void {
    // What was lost once stops the stream: nothing behind it can arrive. Some ends take what is on the way along.
    let broken = false;
    const lossy = this.prng.int(2) === 0;
    const pipe = (target: SimServer) => {
      let last = 0;
      return (deliver: () => void): void => {
        last = Math.max(last + 0.001, this.clock.now() + this.delay(this.networkMs));
        target.at(last - this.clock.now(), () => {
          broken ||= this.#cut.has(pairOf(from.id, to.id)) || (lossy && (out.ended || into.ended));
          if (!broken) deliver();
        });
      };
    };
    const ended = (owner: SimServer) => (link: SimLink, reason: string) => {
      owner.links.delete(link);
      owner.host?.linkDown(link.server, link.side, link, reason);
      const other = owner === from ? to : from;
      other.at(this.delay(3), () => link.other.close('ended by the peer'));
      if (link.side === 'out') this.#dial(from, to);
    };
    const out = new SimLink(to.id, 'out', pipe(to), (f, l) => from.handle(f, l), ended(from));
    const into = new SimLink(from.id, 'in', pipe(from), (f, l) => to.handle(f, l), ended(to));
    out.other = into;
    into.other = out;
    from.links.add(out);
    to.links.add(into);
    for (const old of [...to.links])
      if (old !== into && old.side === 'in' && old.server === from.id) old.close('replaced');
    to.host?.linkUp(from.id, 'in', into);
    from.at(this.delay(this.networkMs), () => {
      if (!out.ended) from.host?.linkUp(to.id, 'out', out);
    });
  }

  /** Breaks the connections between two servers; with `silently`, nobody is told, and nothing arrives, for `ms`. */
  disconnect(a: SimServer, b: SimServer, silently: boolean, ms: number): void {
    const between = [...a.links, ...b.links].filter((link) => link.server === a.id || link.server === b.id);
    if (!silently) {
      for (const link of between) link.close('reset');
      return;
    }
    const pair = pairOf(a.id, b.id);
    this.#cut.add(pair);
    this.clock.after(ms, () => this.#cut.delete(pair));
    // Both ends lost messages: the connection cannot go on, which its ends find by silence.
    this.#silence(between);
  }

  #silence(links: SimLink[]): void {
    for (const link of links) {
      const owner = this.server(link.other.server);
      owner.at(REPLICA_TIMEOUT_MS + this.prng.float() * 300, () => link.close('silent'));
    }
  }

  /** Cuts a server off from the authority, and perhaps from the other servers; clients reach it. */
  isolate(server: SimServer, ms: number, alone: boolean): void {
    this.#isolated.add(server.id);
    this.clock.after(ms, () => this.#isolated.delete(server.id));
    for (const other of this.servers) {
      if (alone && other !== server) this.disconnect(server, other, this.prng.int(2) === 0, ms);
    }
  }

  /** Cuts a server off from the other servers; the authority and clients reach it. */
  seclude(server: SimServer, ms: number): void {
    for (const other of this.servers) if (other !== server) this.disconnect(server, other, true, ms);
  }

  pause(server: SimServer, ms: number): void {
    if (!server.up || server.paused) return;
    server.paused = true;
    this.clock.after(ms, () => {
      if (server.paused) server.resume();
    });
    if (ms < REPLICA_TIMEOUT_MS) return;
    // The others' ends of its connections find silence.
    this.#silence([...server.links].map((link) => link.other));
  }
}

function pairOf(a: number, b: number): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}
