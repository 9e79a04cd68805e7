import assert from 'node:assert/strict';
import type { FuseDevice } from '../../../../client/fuse/kernel/device.js';
import {
  deleteMessage,
  invalEntryMessage,
  invalInodeMessage,
  KernelNotifier,
  MAX_QUEUED_NOTIFICATIONS,
} from '../../../../client/fuse/kernel/notify.js';
import { deferred } from '../../../../common/deferred.js';
import { FakeDevice, systemError } from './fake-device.js';
import { GOLDEN_REPLIES } from './golden.js';

/** A device whose notifications end when the test says so. */
class SlowDevice extends FakeDevice implements FuseDevice {
  readonly ends: ReturnType<typeof deferred<void>>[] = [];

  override notify(message: Buffer): Promise<void> {
    this.notifications.push(message);
    const end = deferred<void>();
    this.ends.push(end);
    return end.promise;
  }
}

describe('notifications to the kernel', () => {
  it('are laid out as the kernel reads them', () => {
    assert.deepEqual(invalInodeMessage(0x3_0000_0004, -1, 0x2_0000_0001), GOLDEN_REPLIES.invalInode);
    assert.deepEqual(invalEntryMessage(5, Buffer.from('abc')), GOLDEN_REPLIES.invalEntry);
    assert.deepEqual(deleteMessage(5, 6, Buffer.from('abc')), GOLDEN_REPLIES.delete);
  });

  it('bring bytes for pages by a thread of their own, where there are enough', async () => {
    const device = new SlowDevice();
    const notifier = new KernelNotifier(device, 5);
    void notifier.storePages?.(0x3_0000_0004, 0x2_0000_1000, Buffer.from('abcd'));
    void notifier.storePages?.(7, 0, Buffer.from('e'));
    void notifier.invalidateInode(8, 0, 0);
    const header = Buffer.from([44, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const store = Buffer.from([4, 0, 0, 0, 3, 0, 0, 0, 0, 0x10, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual(device.notifications[0], Buffer.concat([header, store, Buffer.from('abcd')]));
    assert.deepEqual(
      device.notifications.map((message) => message.readUInt32LE(16)),
      [4, 8],
    );
    assert.equal(new KernelNotifier(device, 4).storePages, undefined);
  });

  it('bring a whole file, and take its attributes back, at once', () => {
    const device = new SlowDevice();
    const now: Buffer[] = [];
    Object.assign(device, { notifyNow: (message: Buffer) => void now.push(message) });
    const notifier = new KernelNotifier(device, 1);
    assert.equal(notifier.storeFile(7, Buffer.from('abcd')), true);
    notifier.expireAttr(0x3_0000_0004);
    assert.deepEqual(
      now.map((message) => [message.length, message.readUInt32LE(16)]),
      [
        [44, 7],
        [40, 4],
      ],
    );
    assert.equal(now[0]?.subarray(40).toString(), 'abcd');
    assert.equal(now[1]?.readBigInt64LE(24), -1n);
    device.notifyNow = () => {
      throw Object.assign(new Error('gone'), { code: 'ENOENT' });
    };
    assert.equal(notifier.storeFile(7, Buffer.from('abcd')), false);
    notifier.expireAttr(7);
  });

  it('are written in order, no more at a time than there are threads for them', async () => {
    const device = new SlowDevice();
    const notifier = new KernelNotifier(device, 4); // half of them for names
    const done: number[] = [];
    for (let i = 1; i <= 4; i++) void notifier.invalidateInode(i, 0, 0).then(() => done.push(i));
    const written = () => device.notifications.map((message) => message.readUInt32LE(16));
    assert.deepEqual(written(), [1, 2]);
    device.ends[1]!.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([written(), done], [[1, 2, 3], [2]]);
    for (const end of [...device.ends]) end.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(
      [written(), done],
      [
        [1, 2, 3, 4],
        [2, 1, 3],
      ],
    );
  });

  it('succeed when the kernel had nothing cached, and pass on other errors', async () => {
    const device = new SlowDevice();
    const notifier = new KernelNotifier(device, 4);
    const missing = notifier.invalidateEntry(1, Buffer.from('a'));
    const wrong = notifier.deleteEntry(1, 2, Buffer.from('b'));
    device.ends[0]!.reject(systemError('ENOENT'));
    device.ends[1]!.reject(systemError('EINVAL'));
    await missing;
    await assert.rejects(wrong, { code: 'EINVAL' });
  });

  it('are refused when too many wait', async () => {
    const notifier = new KernelNotifier(new SlowDevice(), 1);
    for (let i = 0; i <= MAX_QUEUED_NOTIFICATIONS; i++) void notifier.invalidateInode(1, 0, 0);
    await assert.rejects(notifier.invalidateInode(1, 0, 0), { errorName: 'OVERLOADED' });
  });
});
