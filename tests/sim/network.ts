import type { Prng } from '../../common/prng.js';
import { FRAME_HEADER_BYTES, FrameType, readHeader } from '../../proto/frame-header.js';
import type { VirtualClock } from '../chunkserver/pg/sim/virtual-clock.js';
import type { SimProcess } from './process.js';
import type { Trace } from './trace.js';

const LATENCY_MIN_MS = 0.05;
const LATENCY_MAX_MS = 0.6;
const SPIKE_CHANCE = 0.01;
const SPIKE_MAX_MS = 40;
/** Keep-alive finds after this time that the machine at the other end has vanished. */
const KEEP_ALIVE_MS = 15_000;
/** TCP retransmits with growing pauses: after a cut the data comes so much later. */
const RETRANSMIT_MAX_MS = 200;
/** A connection that breaks loses what was on its way, with this chance, else a part of it. */
const LOSE_ALL_CHANCE = 0.5;

/** A process that is busy reads what has arrived so much later, with what has followed it: as one piece, in one turn of its loop. */
const READ_LATE_CHANCE = 0.1;
const READ_LATE_MAX_MS = 3;

/** TCP asks again so long after a lost SYN, and twice as long after each further one. */
const SYN_RETRY_MS = 1_000;
/** With a host that loses handshakes: a SYN gets lost, and who has asked is reset before anybody accepts it. */
const SYN_LOSS_CHANCE = 0.5;
const RESET_CHANCE = 0.25;

/** What a connection is for, told to whoever listens. */
export interface Dialled {
  kind: 'rpc' | 'tcp';
  /** Of an rpc stream. */
  path: string;
}

/** Receives what the other end sends. */
export interface Receiver {
  message(bytes: Buffer): void;
  /** Once; nothing comes behind it. */
  closed(reason: string): void;
}

/** Sees every message when it is sent; may replace it by others. The simulator's bugs and checkers sit here. */
export type Tap = (from: Endpoint, bytes: Buffer) => Buffer[] | undefined;

/** One end of an ordered stream of messages. */
export class Endpoint {
  readonly network: Network;
  process: SimProcess;
  /** Host at this end and at the other. */
  readonly host: string;
  readonly dialled: Dialled;
  /** The end that dialled. */
  readonly isClient: boolean;
  peer!: Endpoint;
  receiver: Receiver | undefined;
  /** Sends no more, or: nothing comes any more. */
  closed = false;
  ended = false;
  /** Messages that wait for a cut to heal. */
  stalled: { bytes: Buffer | undefined; reason: string; arrived: (() => void) | undefined }[] = [];
  /** Messages on their way to the other end. */
  readonly flying = new Set<object>();
  /** What has arrived at this end while its process was busy. */
  unread: Buffer[] | undefined;
  lastArrival = 0;

  constructor(network: Network, process: SimProcess, host: string, dialled: Dialled, isClient: boolean) {
    this.network = network;
    this.process = process;
    this.host = host;
    this.dialled = dialled;
    this.isClient = isClient;
  }

  send(bytes: Buffer): void {
    if (this.closed || !this.process.alive) return;
    const replaced = this.network.tap?.(this, bytes);
    if (!replaced) this.network.transmit(this, bytes, '');
    else for (const each of replaced) this.network.transmit(this, each, '');
  }

  /** Ends the stream behind what was sent; what the other end has sent is not heard any more. */
  close(reason: string): void {
    if (this.closed) return;
    this.closed = true;
    this.ended = true;
    this.receiver = undefined;
    this.network.forget(this);
    this.network.transmit(this, undefined, reason);
  }

  /** Ends this direction; the other end closes the rest. */
  finish(reason: string): void {
    if (this.closed) return;
    this.closed = true;
    this.network.transmit(this, undefined, reason);
  }
}

interface Listener {
  process: SimProcess;
  accept(endpoint: Endpoint): void;
}

/**
 * Ordered streams between processes on hosts. Within a stream nothing is lost, doubled or overtaken, as over TCP; streams
 * are independent of each other, may stall, and break. Cuts are silent, one-way or both ways.
 */
export class Network {
  readonly #time: VirtualClock;
  readonly #prng: Prng;
  readonly #trace: Trace;
  readonly #listeners = new Map<string, Listener>();
  readonly #endpoints = new Set<Endpoint>();
  /** Cuts by direction `from>to`; counted, for they may overlap. */
  readonly #cuts = new Map<string, number>();
  /** Hosts without power. */
  readonly dark = new Set<string>();
  /** Latency of a host's messages is multiplied. */
  readonly slow = new Map<string, number>();
  /** Hosts from and to which connections are hard to set up. */
  readonly losesHandshakes = new Set<string>();
  tap: Tap | undefined;
  messages = 0;

  constructor(time: VirtualClock, prng: Prng, trace: Trace) {
    this.#time = time;
    this.#prng = prng;
    this.#trace = trace;
  }

  listen(address: string, listener: Listener): void {
    this.#listeners.set(address, listener);
    listener.process.onDeath.push(() => {
      if (this.#listeners.get(address) === listener) this.#listeners.delete(address);
    });
  }

  unlisten(address: string): void {
    this.#listeners.delete(address);
  }

  /** Connects to host:port in the background; what is sent meanwhile arrives behind the handshake. */
  dial(process: SimProcess, address: string, dialled: Dialled): Endpoint {
    const host = address.slice(0, address.lastIndexOf(':'));
    const client = new Endpoint(this, process, process.name, dialled, true);
    // Who listens is known when the handshake arrives; until then the other end belongs to nobody.
    const server = new Endpoint(this, process, host, dialled, false);
    client.peer = server;
    server.peer = client;
    this.#endpoints.add(client);
    const isHard = this.losesHandshakes.has(process.name) || this.losesHandshakes.has(host);
    const reset = isHard && this.#prng.float() < RESET_CHANCE;
    const arrived = (): void => {
      if (reset) this.transmit(server, undefined, 'connection reset before it was accepted');
      else this.#accept(client, server, address);
    };
    this.transmit(client, undefined, 'SYN', arrived, isHard ? this.#synDelayMs() : 0);
    return client;
  }

  /** How much later a SYN gets through because others before it were lost. */
  #synDelayMs(): number {
    let ms = 0;
    for (let retry = SYN_RETRY_MS; this.#prng.float() < SYN_LOSS_CHANCE; retry *= 2) ms += retry;
    return ms;
  }

  #accept(client: Endpoint, pending: Endpoint, address: string): void {
    if (this.dark.has(pending.host)) {
      this.#vanish(client);
      return;
    }
    const listener = this.#listeners.get(address);
    if (!listener) {
      this.transmit(pending, undefined, 'connection refused');
      return;
    }
    pending.process = listener.process;
    this.#endpoints.add(pending);
    listener.process.run('io', () => {
      if (!pending.closed) listener.accept(pending);
    });
  }

  /** Sends a message, or the end of the stream. @param delayMs it arrives so much later, and what is sent behind it too */
  transmit(
    from: Endpoint,
    bytes: Buffer | undefined,
    reason: string,
    arrived?: () => void,
    delayMs = 0,
  ): void {
    const { peer } = from;
    if (from.stalled.length > 0 || this.#isCut(from.host, peer.host)) {
      from.stalled.push({ bytes, reason, arrived });
      return;
    }
    const factor = (this.slow.get(from.host) ?? 1) * (this.slow.get(peer.host) ?? 1);
    let latency = (LATENCY_MIN_MS + this.#prng.float() * (LATENCY_MAX_MS - LATENCY_MIN_MS)) * factor;
    if (this.#prng.float() < SPIKE_CHANCE) latency += this.#prng.float() * SPIKE_MAX_MS;
    const at = Math.max(from.lastArrival, this.#time.now() + latency + delayMs);
    from.lastArrival = at;
    const flight = {};
    from.flying.add(flight);
    this.#time.after(at - this.#time.now(), () => {
      if (!from.flying.delete(flight)) return;
      if (arrived) arrived();
      else this.#arrive(from, bytes, reason);
    });
  }

  #arrive(from: Endpoint, bytes: Buffer | undefined, reason: string): void {
    const to = from.peer;
    this.messages++;
    this.#trace.note(`${from.host}>${to.host}`, bytes, () => (bytes ? describe(from, bytes) : reason));
    if (this.dark.has(to.host)) {
      if (bytes) this.#vanish(from);
      return;
    }
    if (!to.process.alive || to.ended) {
      // The machine is up, but knows nothing of this connection: it says so.
      if (bytes && !from.ended) this.#closeFromOutside(from, 'connection reset');
      return;
    }
    if (!bytes) to.process.run('io', () => this.#readEnd(to, reason));
    else if (to.unread) to.unread.push(bytes);
    else if (to.process.paused || this.#prng.float() < READ_LATE_CHANCE) this.#readLater(to, bytes);
    else to.receiver?.message(bytes);
  }

  #readLater(to: Endpoint, bytes: Buffer): void {
    to.unread = [bytes];
    const read = (): void => to.process.run('io', () => this.#readUnread(to));
    if (to.process.paused) read();
    else this.#time.after(this.#prng.float() * READ_LATE_MAX_MS, read);
  }

  #readUnread(to: Endpoint): void {
    const { unread } = to;
    to.unread = undefined;
    if (unread && !to.ended) to.receiver?.message(Buffer.concat(unread));
  }

  /** The end is a turn of its own. */
  #readEnd(to: Endpoint, reason: string): void {
    if (!to.unread) {
      this.#deliverEnd(to, reason);
      return;
    }
    this.#readUnread(to);
    this.#time.after(0, () => to.process.run('io', () => this.#deliverEnd(to, reason)));
  }

  #deliverEnd(to: Endpoint, reason: string): void {
    if (to.ended) return;
    to.ended = true;
    to.closed = true;
    this.forget(to);
    const { receiver } = to;
    to.receiver = undefined;
    receiver?.closed(reason);
  }

  /** The other end's machine is gone without a word. */
  #vanish(end: Endpoint): void {
    this.#time.after(KEEP_ALIVE_MS, () => this.#closeFromOutside(end, 'keep-alive without an answer'));
  }

  #closeFromOutside(end: Endpoint, reason: string): void {
    end.process.run('io', () => this.#deliverEnd(end, reason));
  }

  forget(end: Endpoint): void {
    this.#endpoints.delete(end);
  }

  /** The process has died: the system closes its connections. With `silent` (no power) nobody is told. */
  died(process: SimProcess, silent: boolean): void {
    for (const end of [...this.#endpoints]) {
      if (end.process !== process) continue;
      this.forget(end);
      end.receiver = undefined;
      if (silent) {
        end.closed = true;
        end.ended = true;
        end.stalled = [];
        this.#vanish(end.peer);
      } else end.close('the process has died');
    }
  }

  /** Breaks all connections between two hosts; messages on their way are lost, all or the last of them. */
  breakAll(a: string, b: string): void {
    for (const end of [...this.#endpoints]) {
      if (!((end.host === a && end.peer.host === b) || (end.host === b && end.peer.host === a))) continue;
      if (end.closed) continue;
      this.#lose(end);
      this.#lose(end.peer);
      end.closed = true;
      this.#closeFromOutside(end, 'connection reset');
    }
  }

  #lose(end: Endpoint): void {
    end.stalled = [];
    const flying = [...end.flying];
    const kept = this.#prng.float() < LOSE_ALL_CHANCE ? 0 : this.#prng.int(flying.length + 1);
    for (const flight of flying.slice(kept)) end.flying.delete(flight);
  }

  /** Cuts one direction, silently, until the returned function is called. */
  cut(from: string, to: string): () => void {
    const key = `${from}>${to}`;
    this.#cuts.set(key, (this.#cuts.get(key) ?? 0) + 1);
    let healed = false;
    return () => {
      if (healed) return;
      healed = true;
      const left = (this.#cuts.get(key) as number) - 1;
      this.#cuts.set(key, left);
      if (left === 0) this.#resume(from, to);
    };
  }

  #isCut(from: string, to: string): boolean {
    return (this.#cuts.get(`${from}>${to}`) ?? 0) > 0;
  }

  #resume(from: string, to: string): void {
    for (const end of this.#allEnds()) {
      if (end.host !== from || end.peer.host !== to || end.stalled.length === 0) continue;
      this.#time.after(this.#prng.float() * RETRANSMIT_MAX_MS, () => {
        if (this.#isCut(from, to)) return;
        const stalled = end.stalled;
        end.stalled = [];
        for (const { bytes, reason, arrived } of stalled) this.transmit(end, bytes, reason, arrived);
      });
    }
  }

  /** Those that are closed too: their end may wait for the cut to heal. */
  #allEnds(): Set<Endpoint> {
    const all = new Set(this.#endpoints);
    for (const end of this.#endpoints) all.add(end.peer);
    return all;
  }
}

/** A message in words, for the trace. */
function describe({ dialled }: Endpoint, bytes: Buffer): string {
  if (dialled.kind === 'rpc') return `${dialled.path.split('.').at(-1)} ${bytes.length} bytes`;
  const frames: string[] = [];
  for (let at = 0; at + FRAME_HEADER_BYTES <= bytes.length; ) {
    const header = readHeader(bytes.subarray(at, at + FRAME_HEADER_BYTES));
    const { pg, epoch, ino, chunk, status, requestId } = header;
    const type = FrameType[header.type] ?? header.type;
    const about = type === 'PING' ? '' : ` pg ${pg} epoch ${epoch} ${ino}/${chunk} status ${status}`;
    frames.push(`${header.isReply ? 're ' : ''}${type} #${requestId}${about}`);
    at += FRAME_HEADER_BYTES + header.payloadLength;
  }
  return frames.join(', ');
}
