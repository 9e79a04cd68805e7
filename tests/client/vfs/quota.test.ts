import assert from 'node:assert/strict';
import { type ChangeQuota, QuotaKind } from '../../../proto/gen/meta.js';
import { b } from '../../metaserver/namespace/harness.js';
import { caller, TestMount } from '../support/test-mount.js';

const KIB = 1024;

/** A quota of a directory, counted; the mount is told as by the leader. @returns its number */
function limit(mount: TestMount, id: number, limits: Partial<ChangeQuota>): number {
  const { namespace, leaseEvents } = mount.meta;
  const kind = limits.kind ?? QuotaKind.QUOTA_TREE;
  const { quota } = namespace.command({
    $case: 'changeQuota',
    value: { remove: false, ...limits, kind, id },
  });
  const step = { kind, id: quota?.id ?? 0, max: 1000 };
  while (!namespace.command({ $case: 'stepQuota', value: step }).quota?.finished);
  leaseEvents?.onQuotaRules?.(namespace.machine.quotas().rules());
  return quota?.id ?? 0;
}

/** A cluster with the directories `limited`, of a quota, and `free`. */
async function limitedMount(limits: Partial<ChangeQuota>): Promise<{
  mount: TestMount;
  limited: number;
  free: number;
  quota: () => { bytes: number; inodes: number; reserved: { bytes: number; inodes: number } };
}> {
  const mount = new TestMount();
  const { namespace } = mount.meta;
  const [limited, free] = [namespace.mkdir(1, 'limited'), namespace.mkdir(1, 'free')];
  const id = limit(mount, limited, limits);
  const quota = () => {
    const found = namespace.machine
      .quotas()
      .list()
      .find((one) => one.id === id);
    assert.ok(found);
    const { bytes, inodes } = namespace.machine.quotas().reserved(QuotaKind.QUOTA_TREE, id);
    return { bytes: found.bytes, inodes: found.inodes, reserved: { bytes, inodes } };
  };
  return { mount, limited, free, quota };
}

async function create(
  mount: TestMount,
  parent: number,
  name: string,
): Promise<{ ino: number; handle: number }> {
  const reply = await mount.fs.create(caller(), parent, b(name), 0o644, 2, 0);
  return { ino: reply.entry.attr.ino, handle: reply.handle };
}

const code = (name: string) => (error: unknown) => (error as { errorName?: string }).errorName === name;

/** What creating and writing some files asks of the metaservers. */
async function work(mount: TestMount, parent: number): Promise<string[]> {
  mount.meta.take();
  mount.meta.batches.splice(0);
  for (let n = 0; n < 10; n++) {
    const { ino, handle } = await create(mount, parent, `f${n}`);
    await mount.write(handle, 0, Buffer.alloc(10 * KIB));
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.fs.release(ino, handle, 2);
  }
  return [...mount.meta.take(), ...mount.meta.batches.flat()];
}

describe('a mount under quotas', () => {
  it('asks the servers for nothing more where there is no limit, whatever is limited elsewhere', async () => {
    const plain = new TestMount();
    const { mount, free } = await limitedMount({ bytes: 1024 * KIB, inodes: 100 });
    const without = await work(plain, plain.meta.namespace.mkdir(1, 'free'));
    assert.deepEqual(await work(mount, free), without);
    assert.ok(!without.includes('reserveQuota'));
  });

  it('has many changes set aside with one request, and what is left over given back when idle', async () => {
    const { mount, limited, quota } = await limitedMount({ bytes: 1024 * KIB * KIB, inodes: 10_000 });
    const asked = await work(mount, limited);
    assert.ok(asked.filter((kind) => kind === 'reserveQuota').length <= 3, asked.join());
    assert.deepEqual([quota().bytes, quota().inodes], [100 * KIB, 11]);
    assert.ok(quota().reserved.inodes > 0);
    await mount.clock.advance(10_000);
    assert.deepEqual(quota().reserved, { bytes: 0, inodes: 0 });
  });

  it('refuses the create that goes beyond the limit, and loses none that it answered', async () => {
    const { mount, limited, quota } = await limitedMount({ inodes: 8 });
    for (let n = 0; n < 7; n++) {
      const { ino, handle } = await create(mount, limited, `f${n}`);
      await mount.fs.release(ino, handle, 2);
    }
    await assert.rejects(create(mount, limited, 'beyond'), code('EDQUOT'));
    await assert.rejects(mount.fs.mkdir(caller(), limited, b('d'), 0o755, 0), code('EDQUOT'));
    // What is there already is no new inode.
    await assert.rejects(mount.fs.mkdir(caller(), limited, b('f1'), 0o755, 0), code('EEXIST'));
    const { ino, handle } = await create(mount, limited, 'f1');
    await mount.fs.release(ino, handle, 2);
    await mount.fs.fsyncdir(caller(), limited, 0, false);
    assert.equal(mount.meta.namespace.names(limited).length, 7);
    assert.equal(quota().inodes, 8);
  });

  it('takes of a long write what there is room for, and nothing of the next one', async () => {
    const { mount, limited, quota } = await limitedMount({ bytes: 100 * KIB });
    const { ino, handle } = await create(mount, limited, 'f');
    assert.equal(await mount.write(handle, 0, Buffer.alloc(90 * KIB)), 90 * KIB);
    assert.equal(await mount.write(handle, 90 * KIB, Buffer.alloc(64 * KIB)), 8 * KIB);
    await assert.rejects(mount.write(handle, 98 * KIB, Buffer.alloc(4 * KIB)), code('EDQUOT'));
    assert.equal(await mount.write(handle, 98 * KIB, Buffer.alloc(2 * KIB)), 2 * KIB);
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.equal(quota().bytes, 100 * KIB);
    // Over what is stored already there is room.
    assert.equal(await mount.write(handle, 10 * KIB, Buffer.alloc(50 * KIB)), 50 * KIB);
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.deepEqual([quota().bytes, quota().reserved.bytes], [100 * KIB, 0]);
  });

  it('counts what is written over and over once', async () => {
    const { mount, limited, quota } = await limitedMount({ bytes: 100 * KIB });
    const { ino, handle } = await create(mount, limited, 'f');
    for (let round = 0; round < 50; round++)
      assert.equal(await mount.write(handle, 0, Buffer.alloc(20 * KIB)), 20 * KIB);
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.equal(quota().bytes, 20 * KIB);
  });

  it('counts what fallocate reserves as a write of it would, and what is written there no second time', async () => {
    const { mount, limited, quota } = await limitedMount({ bytes: 100 * KIB });
    const { ino, handle } = await create(mount, limited, 'f');
    const reserve = (bytes: number) => mount.fs.fallocate(caller(), ino, handle, 0, 0, bytes);
    await reserve(60 * KIB);
    assert.equal(quota().bytes, 60 * KIB);
    assert.equal(await mount.write(handle, 0, Buffer.alloc(60 * KIB)), 60 * KIB);
    await mount.fs.fsync(caller(), ino, handle, false);
    assert.equal(quota().bytes, 60 * KIB);
    await reserve(100 * KIB);
    const { length } = mount.chunks.reserves;
    await assert.rejects(reserve(101 * KIB), code('EDQUOT'));
    assert.equal(mount.chunks.reserves.length, length, 'nothing was reserved');
    await reserve(100 * KIB);
    assert.equal(await mount.write(handle, 60 * KIB, Buffer.alloc(40 * KIB)), 40 * KIB);
    await mount.fs.fsync(caller(), ino, handle, false);
    await mount.fs.fsyncdir(caller(), limited, 0, false);
    assert.deepEqual([quota().bytes, quota().reserved.bytes], [100 * KIB, 0]);
  });

  it('shows the limits of the tree in statfs there, and nowhere else', async () => {
    const { mount, limited, free } = await limitedMount({ inodes: 8 });
    const seen = await mount.fs.statfs(caller(), limited);
    assert.deepEqual([seen.files, seen.filesFree], [8, 7]);
    assert.ok((await mount.fs.statfs(caller(), free)).files > 8);
  });
});
