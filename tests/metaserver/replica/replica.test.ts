import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { systemClock } from '../../../common/clock.js';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { type Disk, nodeDisk } from '../../../common/disk.js';
import { MemoryDisk } from '../../../common/memory-disk.js';
import { createPrng } from '../../../common/prng.js';
import { RaftNode } from '../../../metaserver/raft/node.js';
import { COMMAND_MAX_BYTES } from '../../../metaserver/replica/proposals.js';
import type { ReplicaOptions } from '../../../metaserver/replica/replica.js';
import type { HoldfastError } from '../../../proto/errors.js';
import { Cluster, until } from './cluster.js';

/** A disk whose syncs wait for what `gate` gives, if anything. */
function hangingDisk(disk: Disk, gate: () => Promise<void> | undefined): Disk {
  return {
    open: async (...args) => {
      const file = await disk.open(...args);
      const datasync = async (): Promise<void> => {
        await gate();
        await file.datasync();
      };
      return {
        write: (parts, position) => file.write(parts, position),
        read: (target, position) => file.read(target, position),
        datasync,
        size: () => file.size(),
        truncate: (length) => file.truncate(length),
        close: () => file.close(),
      };
    },
    mkdir: (dir) => disk.mkdir(dir),
    list: (dir) => disk.list(dir),
    unlink: (file) => disk.unlink(file),
    rename: (from, to) => disk.rename(from, to),
    syncDir: (dir) => disk.syncDir(dir),
    space: (dir) => disk.space(dir),
  };
}

describe('replica', () => {
  let root: string;
  let cluster: Cluster;

  beforeEach(async () => {
    root = await fs.mkdtemp(path.join(os.tmpdir(), 'holdfast-replica-'));
  });

  afterEach(async () => {
    await cluster.close();
    await fs.rm(root, { recursive: true });
  });

  it('elects exactly one leader and replicates to all', async () => {
    cluster = await Cluster.start(root);
    const leader = await cluster.leader();
    assert.equal(await cluster.replica(leader).propose(Buffer.from('a')), 1);
    assert.equal(await cluster.replica(leader).propose(Buffer.from('b')), 2);
    await cluster.settle();
    assert.deepEqual(
      cluster.ids.filter((id) => cluster.replica(id).status().serving),
      [leader],
    );
    for (const id of cluster.ids) assert.deepEqual(cluster.machine(id).state.items, ['a', 'b']);
  });

  it('answers concurrent proposals in the order of their calls', async () => {
    cluster = await Cluster.start(root);
    const leader = cluster.replica(await cluster.leader());
    const results = await Promise.all(
      Array.from({ length: 500 }, (_, i) => leader.propose(Buffer.from(`${i}`))),
    );
    assert.deepEqual(
      results,
      Array.from({ length: 500 }, (_, i) => i + 1),
    );
  });

  it('hands the leadership over when its own disk hangs and those of the others do not', async () => {
    const memory = new MemoryDisk();
    const hung = new Map<number, Deferred<void>>();
    cluster = await Cluster.start(root, { diskOf: (id) => hangingDisk(memory, () => hung.get(id)?.promise) });
    const first = await cluster.leader();
    assert.equal(await cluster.propose('before'), 1);
    const gate = deferred<void>();
    hung.set(first, gate);
    const held = cluster.replica(first).propose(Buffer.from('held'));
    const outcome = held.then(
      () => 'applied',
      (error: HoldfastError) => error.errorName,
    );
    const others = cluster.ids.filter((id) => id !== first);
    const second = await cluster.leader(others);
    assert.equal(
      await cluster.replica(second).propose(Buffer.from('after')),
      3,
      'what a majority had is there',
    );
    assert.equal(cluster.replica(first).status().role, 'follower');
    hung.clear();
    gate.resolve();
    await cluster.settle();
    assert.ok(['applied', 'UNAVAILABLE'].includes(await outcome));
    for (const id of cluster.ids)
      assert.deepEqual(cluster.machine(id).state.items, ['before', 'held', 'after']);
  });

  it('loses nothing acknowledged when the leader dies, and elects another one', async () => {
    cluster = await Cluster.start(root, { disk: nodeDisk });
    const first = await cluster.leader();
    const acknowledged: string[] = [];
    for (let i = 0; i < 50; i++) {
      await cluster.propose(`before ${i}`);
      acknowledged.push(`before ${i}`);
    }
    await cluster.down(first);
    for (let i = 0; i < 50; i++) {
      await cluster.propose(`after ${i}`);
      acknowledged.push(`after ${i}`);
    }
    const second = await cluster.leader();
    assert.notEqual(second, first);
    await cluster.up(first);
    await cluster.settle();
    for (const id of cluster.ids) {
      const items = cluster.machine(id).state.items;
      assert.deepEqual(
        items.filter((item) => acknowledged.includes(item)),
        acknowledged,
      );
    }
    await until(() => cluster.machine(first).state.applied > 0, 'the old leader catches up');
  });

  it('replays its log after a restart, from what the state machine holds durably', async () => {
    cluster = await Cluster.start(root);
    for (let i = 0; i < 10; i++) await cluster.propose(`${i}`);
    await cluster.settle();
    await cluster.machine(1).flushed();
    for (let i = 10; i < 20; i++) await cluster.propose(`${i}`);
    await cluster.settle();
    await cluster.down(1);
    assert.equal(cluster.machine(1).state.items.length, 10);
    await cluster.up(1);
    await cluster.settle();
    assert.deepEqual(
      cluster.machine(1).state.items,
      Array.from({ length: 20 }, (_, i) => `${i}`),
    );
  });

  it('keeps everything acknowledged through a power cut of all servers at once', async () => {
    const disk = new MemoryDisk();
    cluster = await Cluster.start(root, { disk });
    const leader = cluster.replica(await cluster.leader());
    const acknowledged: string[] = [];
    // The cut comes amid the work: some proposals have their answer, others do not.
    const work = Array.from({ length: 200 }, (_, i) =>
      leader.propose(Buffer.from(`${i}`)).then(
        () => acknowledged.push(`${i}`),
        () => undefined,
      ),
    );
    await work[20];
    disk.crash('random', createPrng(3));
    for (const id of cluster.ids) await cluster.down(id);
    await Promise.all(work);
    for (const id of cluster.ids) await cluster.up(id);
    await cluster.propose('after');
    await cluster.settle();
    const { items } = cluster.machine(1).state;
    assert.ok(acknowledged.length >= 20);
    assert.deepEqual(
      items.filter((item) => acknowledged.includes(item)),
      acknowledged,
    );
    assert.deepEqual(cluster.machine(2).state, cluster.machine(1).state);
    assert.deepEqual(cluster.machine(3).state, cluster.machine(1).state);
  });

  it('cuts its log, and sends a snapshot to a server that is too far behind', async () => {
    cluster = await Cluster.start(root, {
      options: () => ({ keepEntries: 20, keepBytes: 4096, segmentBytes: 4096 }),
    });
    const behind = await follower(cluster);
    await cluster.propose('first');
    await cluster.down(behind);
    for (let i = 0; i < 30; i++) {
      await Promise.all(Array.from({ length: 10 }, () => cluster.propose(`${i} ${'x'.repeat(100)}`)));
    }
    const leader = await cluster.leader();
    await until(() => cluster.replica(leader).status().firstIndex > 200, 'the log is cut');
    await cluster.up(behind);
    await cluster.settle();
    assert.equal(cluster.machine(behind).restores, 1);
    assert.deepEqual(cluster.machine(behind).state, cluster.machine(leader).state);
    for (const id of [leader, behind]) {
      const dir = `${cluster.dir(id)}/snapshot`;
      await until(async () => (await cluster.disk.list(dir)).length === 0, 'no temporary file is left');
    }
    await cluster.propose('after');
    await cluster.down(behind);
    await cluster.up(behind);
    await cluster.settle();
    assert.equal(cluster.machine(behind).state.items.at(-1), 'after');
    assert.equal(cluster.machine(behind).restores, 0, 'the restart needs no second snapshot');
  });

  it('streams a snapshot of many chunks', async () => {
    cluster = await Cluster.start(root, {
      disk: nodeDisk,
      options: () => ({ keepEntries: 4, keepBytes: 1 << 20 }),
    });
    const behind = await follower(cluster);
    await cluster.down(behind);
    for (let i = 0; i < 12; i++) await cluster.propose(`${i}`.padEnd(1_000_000, 'x'));
    const leader = await cluster.leader();
    await until(() => cluster.replica(leader).status().firstIndex > 3, 'the log is cut');
    await cluster.up(behind);
    await cluster.settle();
    assert.equal(cluster.machine(behind).restores, 1);
    assert.deepEqual(cluster.machine(behind).state, cluster.machine(leader).state);
  });

  it('shares fdatasyncs between concurrent proposals', async () => {
    const disk = new MemoryDisk();
    cluster = await Cluster.start(root, { disk });
    const leader = cluster.replica(await cluster.leader());
    const before = disk.calls.get('datasync') ?? 0;
    await Promise.all(Array.from({ length: 300 }, (_, i) => leader.propose(Buffer.from(`${i}`))));
    await cluster.settle();
    const syncs = (disk.calls.get('datasync') ?? 0) - before;
    assert.ok(syncs < 100, `${syncs} fdatasyncs on three servers for 300 proposals`);
    assert.ok(cluster.machine(1).largestBatch > 1);
  });

  it('refuses proposals and reads on a follower, naming the leader', async () => {
    cluster = await Cluster.start(root);
    const leader = await cluster.leader();
    const other = await follower(cluster);
    await until(() => cluster.replica(other).status().leader === leader, 'the follower knows the leader');
    const expected = { errorName: 'NOT_LEADER', leaderHint: `127.0.0.1:${cluster.member(leader).port}` };
    await assert.rejects(cluster.replica(other).propose(Buffer.from('x')), expected);
    await assert.rejects(cluster.replica(other).readBarrier(), expected);
    assert.equal(cluster.replica(other).canReadNow(), false);
  });

  it('answers no read on a leader that was cut off, once another may lead', async () => {
    cluster = await Cluster.start(root, { links: true });
    await cluster.propose('old');
    const deposed = await cluster.leader();
    const others = cluster.ids.filter((id) => id !== deposed);
    cluster.isolate(deposed);
    const lost = assert.rejects(cluster.replica(deposed).propose(Buffer.from('lost')), { retriable: true });
    const leader = await cluster.leader(others);
    assert.equal(cluster.replica(deposed).canReadNow(), false);
    assert.equal(await cluster.replica(leader).propose(Buffer.from('new')), 2);
    await assert.rejects(cluster.replica(deposed).readBarrier(), { errorName: 'NOT_LEADER' });
    await lost;
    cluster.heal();
    await cluster.settle();
    for (const id of cluster.ids) assert.deepEqual(cluster.machine(id).state.items, ['old', 'new']);
  });

  it('looks at the clock before a read: after a pause the lease is over', async () => {
    let pausedMs = 0;
    const clock = { ...systemClock, now: () => systemClock.now() + pausedMs };
    cluster = await Cluster.start(root, { options: () => ({ clock }) });
    const leader = cluster.replica(await cluster.leader());
    await leader.readBarrier();
    assert.equal(leader.canReadNow(), true);
    pausedMs += 60_000;
    assert.equal(leader.canReadNow(), false);
  });

  it('makes a read wait for a majority when the lease is over', async () => {
    cluster = await Cluster.start(root, { links: true });
    const id = await cluster.leader();
    const leader = cluster.replica(id);
    const { leaseValid } = RaftNode.prototype;
    RaftNode.prototype.leaseValid = () => false;
    try {
      await leader.propose(Buffer.from('a'));
      assert.equal(leader.canReadNow(), false);
      await Promise.all([leader.readBarrier(), leader.readBarrier()]);
    } finally {
      RaftNode.prototype.leaseValid = leaseValid;
    }
  });

  it('tells of the leadership when it begins to serve, and when it ceases to', async () => {
    cluster = await Cluster.start(root);
    const first = await cluster.leader();
    const { term } = cluster.replica(first).status();
    const seen: string[] = [];
    for (const id of cluster.ids) {
      cluster
        .replica(id)
        .onLeadership((leads, at) => seen.push(`${id} ${leads ? 'leads' : 'ceases'} in ${at}`));
    }
    await cluster.replica(first).transferLeader(0);
    const second = await cluster.leader(cluster.ids.filter((id) => id !== first));
    const next = cluster.replica(second).status().term;
    assert.deepEqual(seen, [
      `${first} leads in ${term}`,
      `${first} ceases in ${term}`,
      `${second} leads in ${next}`,
    ]);
    assert.ok(next > term);
  });

  it('shows every applied batch, in order, on all servers', async () => {
    cluster = await Cluster.start(root);
    const seen = new Map<number, string[]>(cluster.ids.map((id) => [id, []]));
    for (const id of cluster.ids) {
      cluster.replica(id).onApplied((commands, results) => {
        assert.equal(results.length, commands.length);
        for (const { data } of commands) seen.get(id)?.push(data.toString());
      });
    }
    const leader = cluster.replica(await cluster.leader());
    await Promise.all(['a', 'b', 'c'].map((text) => leader.propose(Buffer.from(text))));
    await cluster.settle();
    for (const id of cluster.ids) assert.deepEqual(seen.get(id), ['a', 'b', 'c']);
  });

  it('serves alone when it is the only server', async () => {
    cluster = await Cluster.start(root, { servers: 1 });
    assert.equal(await cluster.propose('a'), 1);
    await cluster.machine(1).flushed();
    assert.equal(await cluster.propose('b'), 2);
    await cluster.down(1);
    await cluster.up(1);
    assert.equal(await cluster.propose('c'), 3);
  });

  it('rejects what waits when it is closed, and everything afterwards', async () => {
    cluster = await Cluster.start(root);
    const id = await cluster.leader();
    const leader = cluster.replica(id);
    const waiting = assert.rejects(leader.propose(Buffer.from('x')), { errorName: 'UNAVAILABLE' });
    await cluster.down(id);
    await waiting;
    await assert.rejects(leader.propose(Buffer.from('y')), { errorName: 'UNAVAILABLE' });
    await assert.rejects(leader.readBarrier(), { errorName: 'UNAVAILABLE' });
  });

  it('refuses an empty and an oversized command', async () => {
    cluster = await Cluster.start(root, { servers: 1 });
    const leader = cluster.replica(await cluster.leader());
    await assert.rejects(leader.propose(Buffer.alloc(0)), { errorName: 'PROTOCOL' });
    await assert.rejects(leader.propose(Buffer.alloc(COMMAND_MAX_BYTES + 1)), { errorName: 'PROTOCOL' });
  });

  it('stops when its state machine throws, and says so once', async () => {
    cluster = await Cluster.start(root);
    const id = await cluster.leader();
    const failure = new Error('no such state');
    cluster.machine(id).failure = failure;
    await assert.rejects(cluster.replica(id).propose(Buffer.from('x')), { errorName: 'UNAVAILABLE' });
    assert.deepEqual(cluster.member(id).fatal, [failure]);
    assert.equal(cluster.replica(id).canReadNow(), false);
  });

  it('stops when its disk fails, and the others go on', async () => {
    const disks = new Map([1, 2, 3].map((id) => [id, new MemoryDisk()]));
    cluster = await Cluster.start(root, { diskOf: (id) => disks.get(id) as MemoryDisk });
    const id = await cluster.leader();
    await cluster.propose('a');
    disks.get(id)?.fail('datasync', 'EIO');
    await cluster
      .replica(id)
      .propose(Buffer.from('b'))
      .catch(() => undefined);
    await until(() => cluster.member(id).fatal.length > 0, 'the failure is reported');
    assert.match(String(cluster.member(id).fatal[0]), /fdatasync failed/);
    await cluster.leader(cluster.ids.filter((other) => other !== id));
    await cluster.propose('c');
  });

  it('refuses the disk of another cluster, of another server, and one without a format', async () => {
    cluster = await Cluster.start(root, { servers: 1 });
    await cluster.down(1);
    const refused = (options: Partial<ReplicaOptions<number>>) => cluster.open(1, options);
    await assert.rejects(refused({ clusterId: 'other' }), /data of cluster .* not of other/);
    await assert.rejects(refused({ serverId: 2 }), /data of metaserver 1, not of 2/);
    await assert.rejects(refused({ dir: `${root}/nowhere` }), /not formatted/);
  });
});

/** Some server that does not lead. */
async function follower(cluster: Cluster): Promise<number> {
  const leader = await cluster.leader();
  return cluster.ids.find((id) => id !== leader) as number;
}
