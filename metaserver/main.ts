import { createServer } from 'node:net';
import { deferred } from '../common/deferred.js';
import { lockDirectory } from '../common/dir-lock.js';
import { nodeDisk } from '../common/disk.js';
import { isDamage, noteDamage, notedDamage, setAside } from './damage.js';
import { type MetaserverDeps, type MetaserverOptions, type StartedServer, startServer } from './server.js';

export type { MetaserverDeps, MetaserverOptions } from './server.js';

export interface RunningMetaserver {
  port: number;
  /** Hands the leadership over if it has it, ends all streams and closes its files. */
  close(): Promise<void>;
  /** Resolves when the server cannot go on; it should be closed then. */
  fatal: Promise<Error>;
}

/**
 * Runs one metaserver: Raft replica, state machine, and the services of its leader, all on one port. When its data turns out to
 * be damaged, at the start or later, it is set aside, and the server starts again as one with an empty disk, which the others
 * fill.
 * @throws Error with one line for the operator: the port is in use, the data directory belongs to another server,
 *   cluster or format version, holds something else, or is damaged and there is no other metaserver
 */
export async function runMetaserver(
  options: MetaserverOptions,
  deps: MetaserverDeps,
): Promise<RunningMetaserver> {
  checkOptions(options);
  await checkPort(options.host, options.port);
  await nodeDisk.mkdir(options.dataDir);
  const unlock = await lockDirectory(options.dataDir);
  const metaserver = new Metaserver(options, deps);
  try {
    await metaserver.start();
  } catch (error) {
    await unlock();
    throw error;
  }
  return {
    port: metaserver.port,
    fatal: metaserver.fatal,
    close: async () => {
      await metaserver.close();
      await unlock();
    },
  };
}

/** One server after the other in the same data directory: a new one for each damage. */
class Metaserver {
  readonly #options: MetaserverOptions;
  readonly #deps: MetaserverDeps;
  readonly #fatal = deferred<Error>();
  #server: StartedServer | undefined;
  #healing: Promise<void> | undefined;
  #closed = false;
  port = 0;

  constructor(options: MetaserverOptions, deps: MetaserverDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get fatal(): Promise<Error> {
    return this.#fatal.promise;
  }

  async start(): Promise<void> {
    if (notedDamage(this.#options.dataDir)) await this.#setAside();
    try {
      this.#server = await this.#startServer();
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#note(error as Error);
      await this.#setAside();
      this.#server = await this.#startServer();
    }
    this.port = this.#server.port;
    // Not before: damage that is found while it starts is only heard of when the start throws it.
    this.#server.verifyBehind();
  }

  #startServer(): Promise<StartedServer> {
    // Found while it starts, damage is what the start throws.
    let started = false;
    const starting = startServer(
      { ...this.#options, port: this.port || this.#options.port },
      this.#deps,
      (error) => {
        if (started) this.#failed(error instanceof Error ? error : new Error(String(error)));
      },
    );
    return starting.then((server) => {
      started = true;
      return server;
    });
  }

  #failed(error: Error): void {
    if (this.#closed || this.#healing) return;
    if (!isDamage(error)) {
      this.#fatal.resolve(error);
      return;
    }
    this.#note(error);
    this.#healing = this.#heal()
      .catch((reason: unknown) =>
        this.#fatal.resolve(reason instanceof Error ? reason : new Error(String(reason))),
      )
      .finally(() => {
        this.#healing = undefined;
      });
  }

  #note(error: Error): void {
    const { clock, log } = this.#deps;
    log.error({ err: error }, 'data is damaged: nothing more is served from it');
    noteDamage(this.#options.dataDir, {
      reason: error.message,
      time: new Date(clock.wall().sec * 1000).toISOString(),
    });
  }

  async #heal(): Promise<void> {
    await this.#server?.abort();
    this.#server = undefined;
    if (!this.#closed) await this.start();
  }

  async #setAside(): Promise<void> {
    const { dataDir, id, peers } = this.#options;
    const reason = notedDamage(dataDir)?.reason ?? '';
    if (peers.length === 1) {
      throw new Error(
        `the data of metaserver ${id}, the only one, is damaged: ${reason}: restore a snapshot of the metadata`,
      );
    }
    const kept = await setAside(nodeDisk, dataDir);
    this.#deps.log.error({ kept, reason }, 'damaged data is set aside; the server joins with an empty disk');
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#healing;
    await this.#server?.close();
  }
}

/** @throws Error on settings that cannot work */
function checkOptions({ id, peers, init }: MetaserverOptions): void {
  const { replicas, minInSync, chunkservers } = init;
  if (!peers.some((peer) => peer.id === id)) throw new Error(`metaserver ${id} is not among its peers`);
  if (new Set(peers.map((peer) => peer.id)).size !== peers.length) throw new Error('two peers have one id');
  if (minInSync > replicas)
    throw new Error(`${minInSync} in-sync copies cannot be had of ${replicas} replicas`);
  if (replicas > chunkservers)
    throw new Error(`${replicas} replicas need more than ${chunkservers} chunkservers`);
}

/** @throws the system's error when the address is in use or not ours */
function checkPort(host: string, port: number): Promise<void> {
  if (port === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}
