import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type RunningChunkserver, runChunkserver } from '../../../chunkserver/main.js';
import { systemClock } from '../../../common/clock.js';
import type { Disk } from '../../../common/disk.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import { HoldfastError } from '../../../proto/errors.js';
import { type FrameFields, FrameType } from '../../../proto/frame-header.js';
import { dialFrames, type Frame, type FrameConnection } from '../../../proto/frames.js';
import { PROTOCOL_VERSION } from '../../../proto/types.js';
import { FakeMeta } from './fake-meta.js';

const DEADLINE_MS = 20_000;
const RETRY_MS = 10;

/** Real chunkservers on loopback under a metaserver in memory, and a client of theirs. */
export class TestCluster {
  readonly meta: FakeMeta;
  readonly #servers = new Map<number, RunningChunkserver>();
  readonly #connections = new Map<number, FrameConnection>();
  dir = '';
  capacityLimitBytes: number | undefined;
  diskStallMs: number | undefined;
  /** Disks of servers that do not have this machine's. */
  readonly disks = new Map<number, Disk>();

  constructor(servers: number, pgCount: number, minInSync: number) {
    this.meta = new FakeMeta(servers, pgCount, minInSync);
  }

  async start(...ids: number[]): Promise<void> {
    await this.prepare();
    await this.meta.start();
    await Promise.all(ids.map((id) => this.startServer(id)));
    await this.meta.when(() => this.meta.whole);
  }

  /** Makes the directory for the servers' own ones. */
  async prepare(): Promise<void> {
    if (this.dir === '') this.dir = await mkdtemp(path.join(tmpdir(), 'holdfast-chunkserver-'));
  }

  /** Leaves a server alone that cannot be closed, for its disk hangs. */
  abandonServer(id: number): void {
    this.#servers.delete(id);
  }

  async stopAll(): Promise<void> {
    for (const connection of this.#connections.values()) connection.close('done');
    await Promise.all([...this.#servers.keys()].map((id) => this.stopServer(id)));
  }

  async close(): Promise<void> {
    await this.stopAll();
    this.meta.stop();
    await rm(this.dir, { recursive: true });
  }

  dataDir(id: number): string {
    return path.join(this.dir, `server-${id}`);
  }

  async startServer(id: number): Promise<RunningChunkserver> {
    const server = await runChunkserver(
      {
        id,
        host: '127.0.0.1',
        port: 0,
        dataDir: this.dataDir(id),
        metaservers: ['127.0.0.1:1', this.meta.address],
        recoveryMbps: 500,
        ...(this.diskStallMs !== undefined && { diskStallMs: this.diskStallMs }),
        ...(this.capacityLimitBytes !== undefined && { capacityLimitBytes: this.capacityLimitBytes }),
      },
      {
        clock: systemClock,
        log: silentLogger,
        prng: createPrng(id),
        disk: this.disks.get(id),
      },
    );
    this.#servers.set(id, server);
    return server;
  }

  async stopServer(id: number): Promise<void> {
    const server = this.#servers.get(id);
    this.#servers.delete(id);
    await server?.close();
  }

  async wipe(id: number): Promise<void> {
    await rm(this.dataDir(id), { recursive: true });
  }

  /** Asks one server. @throws HoldfastError its refusal */
  async ask(
    server: number,
    fields: FrameFields & { type: FrameType },
    payload?: Buffer,
    deadlineMs = DEADLINE_MS,
  ): Promise<Frame> {
    let connection = this.#connections.get(server);
    if (!connection || connection.ended) {
      const { host, port } = this.meta.map.servers.find((info) => info.id === server)!;
      const hello = {
        protocol: PROTOCOL_VERSION,
        clusterId: this.meta.map.clusterId,
        role: 'client' as const,
        id: 1,
      };
      const handler = () => Promise.reject(new HoldfastError('PROTOCOL'));
      const options = { clock: systemClock, log: silentLogger, handler, hello };
      connection = await dialFrames(host, port, options, DEADLINE_MS);
      this.#connections.set(server, connection);
    }
    return connection.call(fields, payload, deadlineMs);
  }

  /** Asks the primary, as a client does: by the newest map, again while it is worth it. */
  async call(fields: FrameFields & { type: FrameType; pg: number }, payload?: Buffer): Promise<Frame> {
    for (;;) {
      const { epoch } = this.meta.pg(fields.pg);
      try {
        return await this.ask(this.meta.primary(fields.pg), { ...fields, epoch }, payload);
      } catch (error) {
        if (!(error instanceof HoldfastError) || !error.retriable || error.errorName === 'NEED_TRUNCATE')
          throw error;
        await new Promise<void>((resolve) => systemClock.after(RETRY_MS, resolve));
      }
    }
  }

  write(pg: number, ino: number, chunk: number, data: Buffer, more: FrameFields = {}): Promise<Frame> {
    return this.call({ type: FrameType.WRITE, pg, ino, chunk, ...more }, data);
  }

  async read(
    pg: number,
    ino: number,
    chunk: number,
    length: number,
    more: FrameFields = {},
  ): Promise<Buffer> {
    const { payload } = await this.call({ type: FrameType.READ, pg, ino, chunk, length, ...more });
    return payload;
  }
}
