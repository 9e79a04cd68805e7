import { backOffMs } from '../../common/backoff.js';
import type { Clock, Timer } from '../../common/clock.js';
import type { Logger } from '../../common/logger.js';
import type { Tracer } from '../../common/trace.js';
import { toHoldfastError } from '../../proto/errors.js';
import { FrameType } from '../../proto/frame-header.js';
import {
  dialFrames,
  type FrameConnection,
  type FrameHandler,
  type FrameHello,
  type Sockets,
} from '../../proto/frames.js';
import { type ClusterMap, ReplicaState } from '../../proto/gen/cluster.js';
import { traceReplication } from '../../proto/trace.js';
import { REPLICA_TIMEOUT_MS } from '../pg/types.js';
import type { PgHost } from './pg-host.js';

/** Links are pinged so often: it finds silence, and brings the free space of idle disks. */
export const PING_INTERVAL_MS = 300;
const DIAL_TIMEOUT_MS = 1500;
const DIAL_RETRY_MIN_MS = 20;
const DIAL_RETRY_MAX_MS = 500;

export interface PeersDeps {
  self: number;
  host: PgHost;
  clock: Clock;
  log: Logger;
  hello: FrameHello;
  handler: FrameHandler;
  /** Default: TCP. */
  sockets?: Sockets;
  /** Notes how long replicas take; absent: nothing is noted. */
  tracer?: Tracer;
}

interface Peer {
  readonly server: number;
  host: string;
  port: number;
  link: FrameConnection | undefined;
  dialing: boolean;
  /** Since it was last connected. */
  failures: number;
  timer: Timer | undefined;
}

/** Keeps one link open to each server that replicates a group which this server leads. */
export class Peers {
  readonly #deps: PeersDeps;
  readonly #peers = new Map<number, Peer>();
  readonly #pinger: Timer;
  #pingedAt: number;
  #closed = false;

  constructor(deps: PeersDeps) {
    this.#deps = deps;
    this.#pingedAt = deps.clock.now();
    this.#pinger = deps.clock.every(PING_INTERVAL_MS, () => this.#ping(), { weak: true });
  }

  setMap(map: ClusterMap): void {
    const wanted = serversToLink(map, this.#deps.self);
    for (const info of map.servers) {
      if (!wanted.has(info.id)) continue;
      const peer = this.#peers.get(info.id);
      if (peer?.host === info.host && peer.port === info.port) continue;
      if (peer) this.#drop(peer, 'the server has another address');
      const { id: server, host, port } = info;
      const entry: Peer = {
        server,
        host,
        port,
        link: undefined,
        dialing: false,
        failures: 0,
        timer: undefined,
      };
      this.#peers.set(server, entry);
      void this.#dial(entry);
    }
    for (const peer of [...this.#peers.values()]) {
      if (!wanted.has(peer.server)) this.#drop(peer, 'no group in common');
    }
  }

  /** A chunkserver that leads a group of this server has connected. */
  accept(connection: FrameConnection): void {
    const server = connection.peer?.id;
    if (server === undefined || connection.peer?.role !== 'chunkserver') return;
    const { host } = this.#deps;
    host.linkUp(server, 'in', connection);
    void connection.closed.then((reason) => host.linkDown(server, 'in', connection, reason));
  }

  close(): void {
    this.#closed = true;
    this.#pinger.cancel();
    for (const peer of [...this.#peers.values()]) this.#drop(peer, 'this server stops');
  }

  #drop(peer: Peer, reason: string): void {
    if (this.#peers.get(peer.server) === peer) this.#peers.delete(peer.server);
    peer.timer?.cancel();
    if (peer.link) this.#deps.host.linkDown(peer.server, 'out', peer.link, reason);
  }

  #present(peer: Peer): boolean {
    return !this.#closed && this.#peers.get(peer.server) === peer;
  }

  async #dial(peer: Peer): Promise<void> {
    const { clock, log, handler, hello, sockets, host, tracer } = this.#deps;
    peer.dialing = true;
    try {
      const options = { clock, log, handler, hello, sockets };
      const link = await dialFrames(peer.host, peer.port, options, DIAL_TIMEOUT_MS);
      if (!this.#present(peer) || link.peer?.id !== peer.server) {
        link.close('another server is meant');
        if (this.#present(peer)) this.#redial(peer);
        return;
      }
      if (tracer) traceReplication(link, tracer);
      peer.link = link;
      peer.failures = 0;
      log.debug({ server: peer.server }, 'connected to a replica');
      host.linkUp(peer.server, 'out', link);
      void link.closed.then((reason) => this.#lost(peer, link, reason));
    } catch (error) {
      log.debug({ server: peer.server, error: toHoldfastError(error).message }, 'replica not reached');
      if (this.#present(peer)) this.#redial(peer);
    } finally {
      peer.dialing = false;
    }
  }

  #lost(peer: Peer, link: FrameConnection, reason: string): void {
    peer.link = undefined;
    this.#deps.host.linkDown(peer.server, 'out', link, reason);
    if (this.#present(peer)) this.#redial(peer);
  }

  #redial(peer: Peer): void {
    peer.timer = this.#deps.clock.after(
      backOffMs(++peer.failures, DIAL_RETRY_MIN_MS, DIAL_RETRY_MAX_MS),
      () => {
        if (this.#present(peer)) void this.#dial(peer);
      },
      { weak: true },
    );
  }

  #ping(): void {
    const { clock, host } = this.#deps;
    const now = clock.now();
    // After a pause of this process, what the others said meanwhile still waits in the sockets.
    const paused = now - this.#pingedAt > 2 * PING_INTERVAL_MS;
    this.#pingedAt = now;
    for (const peer of this.#peers.values()) {
      const { link, server } = peer;
      if (!link || link.ended) continue;
      if (paused) link.lastHeardAt = Math.max(link.lastHeardAt, now - PING_INTERVAL_MS);
      if (now - link.lastHeardAt > REPLICA_TIMEOUT_MS) {
        link.close(`silent for ${REPLICA_TIMEOUT_MS} ms`);
        continue;
      }
      link.request({ type: FrameType.PING }, undefined, 0, undefined, (error, reply) => {
        if (!error && reply) host.setRoom(server, reply.header);
      });
    }
  }
}

/** Servers that hold a replica of a group which `self` leads. */
function serversToLink(map: ClusterMap, self: number): Set<number> {
  const servers = new Set<number>();
  for (const { replicas } of map.pgs) {
    const primary = replicas.find(({ state }) => state === ReplicaState.REPLICA_IN_SYNC)?.server;
    if (primary !== self) continue;
    for (const { server, state } of replicas) {
      if (server !== self && state !== ReplicaState.REPLICA_OUT) servers.add(server);
    }
  }
  return servers;
}
