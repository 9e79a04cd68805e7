import assert from 'node:assert/strict';
import type { Notifier } from '../../../client/fuse/binding.js';
import { ANY_DIRECTORY, KernelEntries } from '../../../client/vfs/kernel-entries.js';
import { deferred } from '../../../common/deferred.js';

const [DIR, OTHER_DIR, FILE] = [10, 11, 12];
const name = (text: string): Buffer => Buffer.from(text);

describe('names that the kernel believes', () => {
  let entries: KernelEntries;
  let expired: string[];
  let forgotten: number;
  /** Whether the kernel has yet to take in a listing. */
  let takesIn: boolean;
  /** What the kernel's lock on a directory lets through. */
  let unlocked: Promise<void>;

  beforeEach(() => {
    expired = [];
    forgotten = 0;
    takesIn = false;
    unlocked = Promise.resolve();
    const notifier: Partial<Notifier> = {
      expireEntry(directory, entry) {
        expired.push(`${directory}/${entry}`);
        return unlocked;
      },
      forgetNames() {
        forgotten++;
        return true;
      },
      takesInNames: () => takesIn,
    };
    entries = new KernelEntries();
    entries.start(notifier as Notifier);
    forgotten = 0;
  });

  it('are expired by name when they were told by a listing that the kernel took in behind the forgetting of all', async () => {
    takesIn = true;
    entries.told(DIR, name('f'), 1000, FILE);
    entries.expireAll();
    takesIn = false;
    await entries.expire(DIR);
    assert.deepEqual([expired, forgotten], [[`${DIR}/f`], 1]);
    entries.told(DIR, name('f'), 1000, FILE);
    entries.expireAll();
    await entries.expire(DIR);
    assert.deepEqual([expired.length, forgotten], [1, 2]);
  });

  it('are expired where they have moved to', async () => {
    entries.told(DIR, name('f'), 1000, FILE);
    const [from, to] = [
      { directory: DIR, name: name('f') },
      { directory: OTHER_DIR, name: name('g') },
    ];
    entries.moved(from, to, FILE, true);
    await entries.expire(OTHER_DIR);
    assert.deepEqual([expired, forgotten], [[`${OTHER_DIR}/g`], 0]);
  });

  it('are all forgotten when one has moved to where no recall would come, or it is not known what moved', () => {
    const [from, to] = [
      { directory: DIR, name: name('f') },
      { directory: OTHER_DIR, name: name('f') },
    ];
    entries.moved(from, to, FILE, false);
    assert.equal(forgotten, 0, 'the kernel believes nothing of it');
    entries.told(DIR, name('f'), 1000, FILE);
    entries.moved(from, to, FILE, false);
    assert.equal(forgotten, 1);
    entries.told(DIR, name('f'), 1000, FILE);
    entries.moved(from, to, undefined, true);
    assert.equal(forgotten, 2);
  });

  for (const [held, which] of [
    [DIR, 'the directory'],
    [ANY_DIRECTORY, 'a directory that is not known'],
  ] as const) {
    it(`are all forgotten, without a lock, while a call holds the kernel's lock on ${which}`, async () => {
      const call = deferred<void>();
      entries.told(DIR, name('f'), 1000, FILE);
      const done = entries.during([held], call.promise);
      await entries.expire(DIR);
      assert.deepEqual([expired, forgotten], [[], 1]);
      call.resolve();
      await done;
      entries.told(DIR, name('f'), 1000, FILE);
      await entries.expire(DIR);
      assert.deepEqual([expired, forgotten], [[`${DIR}/f`], 1]);
    });

    it(`are all forgotten when a call takes the kernel's lock on ${which} while one is being expired`, async () => {
      const call = deferred<void>();
      const lock = deferred<void>();
      unlocked = lock.promise;
      entries.told(DIR, name('f'), 1000, FILE);
      const recalled = entries.expire(DIR);
      const done = entries.during([held], call.promise);
      await recalled;
      assert.equal(forgotten, 1);
      call.resolve();
      lock.resolve();
      await done;
    });
  }
});
