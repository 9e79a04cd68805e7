import assert from 'node:assert/strict';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { settle } from '../support/manual-clock.js';
import { TestMount } from '../support/test-mount.js';

const { LEASE_SHARED: SHARED } = LeaseMode;
const FILES = 20;

describe('files that are asked back together', () => {
  it('go back in one message when nothing of them is left to be written', async () => {
    const mount = new TestMount();
    const { meta, clock } = mount;
    const inos: number[] = [];
    for (let i = 0; i < FILES; i++) {
      const { ino, handle } = await mount.create(`f${i}`);
      await mount.close(handle);
      inos.push(ino);
    }
    await clock.advance(10_000);
    const messages: number[][] = [];
    meta.returnLeases = (leases) => messages.push(leases.map(({ ino }) => ino));
    const seq = 1_000_000;
    meta.leaseEvents?.onRecall(inos.map((ino) => meta.leases.recalled({ ino, mode: SHARED, seq })));
    await settle();
    assert.deepEqual(messages, [inos]);
  });
});
