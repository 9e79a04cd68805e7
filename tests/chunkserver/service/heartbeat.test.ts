import assert from 'node:assert/strict';
import { HeartbeatClient, type HeartbeatDeps } from '../../../chunkserver/service/heartbeat.js';
import { systemClock } from '../../../common/clock.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { silentLogger } from '../../../common/logger.js';
import { createPrng } from '../../../common/prng.js';
import type { HoldfastError } from '../../../proto/errors.js';
import type { Registered } from '../../../proto/gen/cluster.js';
import { FakeMeta } from './fake-meta.js';

const registration = {
  ...{ protocol: 1, clusterId: '', serverId: 1, diskUuid: 'd', host: 'h', port: 1, domain: '' },
};

/** A client whose events arrive as promises. */
class Probe {
  readonly registered: Deferred<Registered>[] = [deferred(), deferred()];
  readonly leases: number[] = [];
  readonly log: string[] = [];
  readonly refused = deferred<HoldfastError>();
  readonly leased = deferred<void>();
  readonly client: HeartbeatClient;
  #ups = 0;

  constructor(addresses: string[]) {
    const deps: HeartbeatDeps = {
      addresses,
      clock: systemClock,
      log: silentLogger,
      prng: createPrng(1),
      registration: () => registration,
      status: () => ({ capacityBytes: 1, usedBytes: 0, freeBytes: 1, pgs: [] }),
      onRegistered: async (registered) => {
        this.log.push('registered');
        this.registered[this.#ups++]?.resolve(registered);
      },
      onUp: () => this.log.push('up'),
      onMap: () => this.log.push('map'),
      onLease: (until) => {
        this.leases.push(until);
        this.leased.resolve();
      },
      onStepDown: () => undefined,
      onTask: () => {},
      onPurge: () => this.log.push('purge'),
      onFence: ({ version }) => this.log.push(`fence ${version}`),
      onDown: () => this.log.push('down'),
      onRefused: (error) => this.refused.resolve(error),
    };
    this.client = new HeartbeatClient(deps);
    this.client.start();
  }
}

describe('the stream to the metaservers', () => {
  const metas: FakeMeta[] = [];
  const open = async (): Promise<FakeMeta> => {
    const meta = new FakeMeta(1, 1, 1);
    await meta.start();
    metas.push(meta);
    return meta;
  };
  afterEach(() => {
    for (const meta of metas.splice(0)) meta.stop();
  });

  it('finds the leader among dead servers and followers, and gets a lease there', async () => {
    const [follower, leader] = [await open(), await open()];
    follower.leads = false;
    const before = systemClock.now();
    const probe = new Probe(['127.0.0.1:1', follower.address, leader.address]);
    const { clusterId } = await probe.registered[0]!.promise;
    assert.equal(clusterId, 'test-cluster');
    await probe.leased.promise;
    assert.ok(probe.leases[0]! >= before + 1500 && probe.leases[0]! <= systemClock.now() + 1500);
    assert.deepEqual(probe.log.slice(0, 2), ['registered', 'up']);
    probe.client.close();
  });

  it('says at once that the stream ended, and registers with the next leader', async () => {
    const [first, second] = [await open(), await open()];
    second.leads = false;
    const probe = new Probe([first.address, second.address]);
    await probe.registered[0]!.promise;
    second.leads = true;
    first.stop();
    await probe.registered[1]!.promise;
    assert.deepEqual(
      probe.log.filter((entry) => entry !== 'map'),
      ['registered', 'up', 'down', 'registered'],
    );
    probe.client.close();
  });

  it('loses nothing that is pushed in the same bytes as the answer to its registration', async () => {
    const meta = await open();
    meta.fence = { version: 1, upto: 0, live: [] };
    meta.behind = [
      { $case: 'fence', value: { version: 2, upto: 0, live: [] } },
      { $case: 'map', value: { ...meta.map, version: meta.map.version + 1000 } },
      { $case: 'purge', value: { pg: 0, ino: 7, truncateSeq: 0, truncateFrom: 0, chunkSize: 4096 } },
    ];
    const probe = new Probe([meta.address]);
    await probe.leased.promise;
    const at = probe.log.indexOf('registered');
    assert.deepEqual(probe.log.slice(at - 1, at + 2), ['fence 1', 'registered', 'up']);
    assert.deepEqual(probe.log.slice(-3), ['fence 2', 'map', 'purge']);
    probe.client.close();
  });

  it('gives up when it belongs to another cluster', async () => {
    const meta = await open();
    meta.refusal = 'WRONG_CLUSTER';
    const probe = new Probe([meta.address]);
    assert.equal((await probe.refused.promise).errorName, 'WRONG_CLUSTER');
    probe.client.close();
  });
});
