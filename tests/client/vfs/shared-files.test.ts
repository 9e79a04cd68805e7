import assert from 'node:assert/strict';
import { deferred } from '../../../common/deferred.js';
import { LeaseMode } from '../../../proto/gen/meta.js';
import { pattern } from '../support/data-harness.js';
import { settle } from '../support/manual-clock.js';
import { caller, TestMount } from '../support/test-mount.js';

const O_RDWR = 2;
const O_APPEND = 0o2000;
const OLD = pattern(100, 1);
const NEW = pattern(100, 2);

describe('a file that several mounts have open for writing', () => {
  interface Shared {
    one: TestMount;
    two: TestMount;
    ino: number;
    /** Descriptions of the two mounts. */
    handles: [number, number];
  }

  async function shared(): Promise<Shared> {
    const one = new TestMount();
    const two = one.second();
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, OLD);
    const { handle: other } = await two.open(ino, O_RDWR);
    await two.write(other, 0, OLD);
    await one.write(handle, 0, OLD);
    one.meta.locked.length = two.meta.locked.length = 0;
    return { one, two, ino, handles: [handle, other] };
  }

  const size = async (mount: TestMount, ino: number): Promise<number> =>
    (await mount.fs.getattr(caller(), ino)).attr.size;

  it('shows a write to nobody before all see it, neither its bytes nor the size', async () => {
    const { one, two, ino, handles } = await shared();
    const release = one.chunks.hold();
    const write = one.write(handles[0], 50, NEW);
    await settle();
    const seen = Promise.all([size(one, ino), one.read(handles[0], 0, 200)]);
    let answered = false;
    void seen.then(() => {
      answered = true;
    });
    await settle();
    if (answered) {
      assert.deepEqual(await seen, [100, OLD]);
      assert.deepEqual([await size(two, ino), await two.read(handles[1], 0, 200)], [100, OLD]);
    }
    release();
    await write;
    const now = Buffer.concat([OLD.subarray(0, 50), NEW]);
    for (const [mount, handle] of [
      [one, handles[0]],
      [two, handles[1]],
    ] as const)
      assert.deepEqual([await size(mount, ino), await mount.read(handle, 0, 200)], [150, now]);
  });

  it('shows it to nobody before, either, where an answer has brought a lease to look at it', async () => {
    const { one, ino, handles } = await shared();
    const release = one.chunks.hold();
    const write = one.write(handles[0], 50, NEW);
    await settle();
    one.meta.leases.granted({ ino, mode: LeaseMode.LEASE_SHARED, seq: 1_000_000 });
    const seen: (number | Buffer)[] = [];
    const looked = size(one, ino).then(async (length) => {
      seen.push(length, await one.read(handles[0], 0, 200));
    });
    await settle();
    assert.deepEqual(seen, []);
    release();
    await write;
    await looked;
    assert.deepEqual(seen, [150, Buffer.concat([OLD.subarray(0, 50), NEW])]);
  });

  it('shows it to nobody before, either, who had begun to read before it was begun', async () => {
    const { one, ino, handles } = await shared();
    one.meta.leases.granted({ ino, mode: LeaseMode.LEASE_SHARED, seq: 1_000_000 });
    assert.equal(await size(one, ino), 100);
    const { chunks } = one;
    const read = chunks.read.bind(chunks);
    let written: Promise<unknown> | undefined;
    let release: () => void = assert.fail;
    chunks.read = async (file, ...where) => {
      if (!written) {
        release = chunks.hold();
        written = one.write(handles[0], 0, NEW);
        await settle();
      }
      return read(file, ...where);
    };
    const seen: Buffer[] = [];
    const looked = one.read(handles[0], 0, 100).then((data) => seen.push(data));
    await settle();
    assert.ok(written, 'the read was on its way');
    assert.deepEqual(seen, []);
    release();
    await Promise.all([written, looked]);
    assert.deepEqual(seen, [NEW]);
  });

  it('has here the size that another mount was shown, while a truncate made here is not yet answered', async () => {
    const { one, two, ino, handles } = await shared();
    one.meta.leases.granted({ ino, mode: LeaseMode.LEASE_SHARED, seq: 1_000_000 });
    assert.equal(await size(one, ino), 100);
    const release = one.meta.holdAnswers('changes');
    const truncated = one.fs.setattr(caller(), ino, { handle: handles[0], size: 10, killPriv: false });
    await settle();
    assert.equal(await size(two, ino), 10);
    assert.equal(await size(one, ino), 10);
    assert.deepEqual(await one.read(handles[0], 0, 100), OLD.subarray(0, 10));
    release();
    await truncated;
  });

  it('never reads as a hole where it was cut off while it was read', async () => {
    const { one, two, ino, handles } = await shared();
    const { chunks } = one;
    const read = chunks.read.bind(chunks);
    let cuts = 0;
    chunks.read = async (file, ...where) => {
      if (cuts++ === 0) {
        await two.fs.setattr(caller(), ino, { size: 10, killPriv: false });
        file.sawTruncate?.(file.truncateSeq + 1);
      }
      return read(file, ...where);
    };
    assert.deepEqual(await one.read(handles[0], 0, 100), OLD.subarray(0, 10));
    assert.deepEqual(await one.read(handles[0], 10, 100), Buffer.alloc(0));
  });

  it('never reads as a hole either where its lease went while it was read, and others cut it off', async () => {
    const one = new TestMount();
    const two = one.second();
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, OLD);
    await one.fs.fsync(caller(), ino, handle, false);
    await one.close(handle);
    const { handle: reading } = await two.open(ino, 0);
    assert.notEqual(two.meta.leases.mode(ino, two.clock.now()), LeaseMode.LEASE_NONE);
    const { chunks } = two;
    const read = chunks.read.bind(chunks);
    let cuts = 0;
    chunks.read = async (file, ...where) => {
      if (cuts++ === 0) await one.fs.setattr(caller(), ino, { size: 10, killPriv: false });
      return read(file, ...where);
    };
    assert.deepEqual(await two.read(reading, 0, 100), OLD.subarray(0, 10));
    assert.ok(cuts > 1);
  });

  it('is read as it is now when a listing of its directory has just brought a lease on it', async () => {
    const { one, two, ino, handles } = await shared();
    for (const name of ['a', 'b', 'c']) await two.create(name);
    await two.write(handles[1], 100, NEW);
    await two.close(handles[1]);
    const leased = (): boolean => one.meta.leases.mode(ino, one.clock.now()) !== LeaseMode.LEASE_NONE;
    assert.equal(leased(), false);
    for (const name of ['a', 'b', 'c']) await one.fs.lookup(caller(), 1, Buffer.from(name));
    assert.equal(leased(), true, 'the listing was fetched');
    assert.deepEqual(await one.read(handles[0], 100, 200), NEW);
  });

  it('is shared from the moment on at which a create opens it for writing', async () => {
    const one = new TestMount();
    const two = one.second();
    const made = await one.create('f');
    await one.close(made.handle);
    const reading = await one.open(made.ino, 0);
    const writing = await two.create('f', 0o644, O_RDWR);
    assert.deepEqual([writing.ino, writing.directIo], [made.ino, true]);
    assert.equal(one.meta.leases.mode(made.ino, one.clock.now()), 0);
    await one.close(reading.handle);
    await two.close(writing.handle);
  });

  it('is made longer or cut in turn with those who append, and overwritten without', async () => {
    const { one, ino, handles } = await shared();
    await one.write(handles[0], 10, NEW.subarray(0, 90));
    assert.deepEqual(one.meta.locked, []);
    await one.write(handles[0], 10, NEW);
    assert.deepEqual(one.meta.locked, [ino]);
    await one.fs.setattr(caller(), ino, { size: 20, killPriv: false });
    assert.deepEqual(one.meta.locked, [ino, ino]);
  });

  it('is appended to behind a truncate that its owner has begun before it was asked for the lease', async () => {
    const one = new TestMount();
    const two = one.second();
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, OLD);
    await one.fs.fsync(caller(), ino, handle, false);
    const release = one.meta.hold();
    const truncated = one.fs.setattr(caller(), ino, { handle, size: 200, killPriv: false });
    await settle();
    const appended = two.open(ino, O_RDWR | O_APPEND).then(async (opened) => {
      await two.write(opened.handle, 0, NEW, O_APPEND);
      return opened.handle;
    });
    await settle();
    release();
    await truncated;
    const whole = Buffer.concat([OLD, Buffer.alloc(100), NEW]);
    assert.deepEqual(await two.read(await appended, 0, 400), whole);
    assert.deepEqual(await one.read(handle, 0, 400), whole);
  });

  it('is cut behind a hole that its owner has begun to punch before it was asked for the lease', async () => {
    const one = new TestMount();
    const two = one.second();
    const PUNCH = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, OLD);
    await one.fs.fsync(caller(), ino, handle, false);
    const release = one.chunks.hold();
    const punched = one.fs.fallocate(caller(), ino, handle, PUNCH, 20, 60);
    await settle();
    const cut = two.open(ino, O_RDWR).then(async ({ handle: other }) => {
      await two.fs.setattr(caller(), ino, { handle: other, size: 30, killPriv: false });
      await one.fs.getattr(caller(), ino);
    });
    await settle();
    release();
    await Promise.all([punched, cut]);
    assert.deepEqual([await size(one, ino), await size(two, ino)], [30, 30]);
    assert.deepEqual(await one.read(handle, 0, 100), Buffer.concat([OLD.subarray(0, 20), Buffer.alloc(10)]));
  });

  it('is appended to behind what its owner has begun to have copied before it was asked for the lease', async () => {
    const one = new TestMount();
    const two = one.second();
    const source = await one.create('source');
    const data = pattern(200_000, 3);
    await one.write(source.handle, 0, data);
    const { handle, ino } = await one.create('f');
    await one.write(handle, 0, OLD);
    await one.fs.fsync(caller(), ino, handle, false);
    const { chunks } = one;
    const copy = chunks.copy.bind(chunks);
    const gate = deferred<void>();
    chunks.copy = async (...what) => {
      await gate.promise;
      return copy(...what);
    };
    const from = { ino: source.ino, handle: source.handle, offset: 0 };
    const copied = one.fs.copyFileRange(caller(), from, { ino, handle, offset: 0 }, data.length);
    await settle();
    const appended = two.open(ino, O_RDWR | O_APPEND).then(async ({ handle: other }) => {
      await two.write(other, 0, NEW, O_APPEND);
      return other;
    });
    await settle();
    gate.resolve();
    await copied;
    assert.ok(chunks.copies.length > 0, 'by the servers');
    const whole = Buffer.concat([data, NEW]);
    assert.ok(whole.equals(await two.read(await appended, 0, 2 * data.length)));
    assert.ok(whole.equals(await one.read(handle, 0, 2 * data.length)));
  });

  describe('that another one cuts off during a write', () => {
    const END = 10;
    const SIZE = OLD.length;
    const REST = Buffer.alloc(SIZE - END);

    const resize = (mount: TestMount, ino: number, size: number): Promise<unknown> =>
      mount.fs.setattr(caller(), ino, { size, killPriv: false });

    /** What both mounts read. */
    async function contents({ one, two, ino, handles }: Shared): Promise<Buffer> {
      const [length, other] = [await size(one, ino), await size(two, ino)];
      assert.equal(length, other);
      const read = await one.read(handles[0], 0, length + 1);
      assert.deepEqual(await two.read(handles[1], 0, length + 1), read);
      return read;
    }

    /** @param meanwhile what happens when the file was cut, and the write has not landed */
    async function cutDuring(
      start: number,
      data: Buffer,
      meanwhile: (file: Shared) => Promise<unknown> = async () => {},
    ): Promise<Shared> {
      const file = await shared();
      const { one, two, ino, handles } = file;
      const release = one.chunks.hold();
      const write = one.write(handles[0], start, data);
      await settle();
      await resize(two, ino, END);
      await meanwhile(file);
      release();
      assert.equal(await write, data.length);
      return file;
    }

    it('has nothing of it behind the new end when it is made longer', async () => {
      const file = await cutDuring(50, NEW.subarray(0, 50));
      assert.deepEqual(await contents(file), OLD.subarray(0, END));
      await resize(file.two, file.ino, SIZE);
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), REST]));
    });

    it('has nothing of it there when the mount that writes has heard of the cut, either', async () => {
      const file = await cutDuring(50, NEW.subarray(0, 50), ({ one, ino }) => {
        const op = { $case: 'open' as const, value: { ino, write: true } };
        return Promise.all([one.meta.ask(op), one.fs.open(caller(), ino, O_RDWR)]);
      });
      assert.deepEqual(await contents(file), OLD.subarray(0, END));
      await resize(file.two, file.ino, SIZE);
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), REST]));
    });

    it('has what of it lies before the new end', async () => {
      const file = await cutDuring(5, NEW.subarray(0, 50));
      const left = Buffer.concat([OLD.subarray(0, 5), NEW.subarray(0, END - 5)]);
      assert.deepEqual(await contents(file), left);
    });

    it('has it where it has been made longer again meanwhile', async () => {
      const file = await cutDuring(50, NEW.subarray(0, 50), ({ two, ino }) => resize(two, ino, 70));
      const gap = Buffer.alloc(50 - END);
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), gap, NEW.subarray(0, 20)]));
    });

    it('is appended to at the new end', async () => {
      let appended: Promise<unknown> | undefined;
      const file = await cutDuring(50, NEW.subarray(0, 50), async ({ one, ino }) => {
        const { handle } = await one.open(ino, O_RDWR | O_APPEND);
        appended = one.write(handle, 0, NEW.subarray(0, 5), O_APPEND);
        await settle();
      });
      await appended;
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), NEW.subarray(0, 5)]));
    });

    it('is made longer in turn by what was to be written over bytes that are gone', async () => {
      const file = await shared();
      const { one, two, ino, handles } = file;
      const ask = one.meta.ask.bind(one.meta);
      let asked = 0;
      one.meta.ask = async (...question) => {
        const answer = await ask(...question);
        if (++asked > 1) return answer;
        await resize(two, ino, END);
        await one.fs.open(caller(), ino, O_RDWR);
        return answer;
      };
      await one.write(handles[0], 50, NEW.subarray(0, 50));
      assert.deepEqual(one.meta.locked, [ino]);
      const gap = Buffer.alloc(50 - END);
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), gap, NEW.subarray(0, 50)]));
    });

    it('has what makes it longer although it was cut while that waited for its turn', async () => {
      const file = await shared();
      const { one, two, ino, handles } = file;
      const set = one.meta.locks.set.bind(one.meta.locks);
      let turns = 0;
      one.meta.locks.set = async (...lock) => {
        if (++turns === 1) await resize(two, ino, END);
        await set(...lock);
      };
      await one.write(handles[0], 60, NEW);
      const gap = Buffer.alloc(60 - END);
      assert.deepEqual(await contents(file), Buffer.concat([OLD.subarray(0, END), gap, NEW]));
    });

    it('is cut in turn with those who make it longer by a mount that has it not open, too', async () => {
      const { one, ino } = await shared();
      const third = one.second();
      await resize(third, ino, END);
      assert.deepEqual(third.meta.locked, [ino]);
    });

    it('gets holes, and copies made by the servers, in turn', async () => {
      const { one, ino, handles } = await shared();
      const PUNCH = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
      await one.fs.fallocate(caller(), ino, handles[0], PUNCH, 20, 30);
      assert.deepEqual(one.meta.locked, [ino]);
      const source = await one.create('source');
      const data = pattern(200_000, 3);
      await one.write(source.handle, 0, data);
      const from = { ino: source.ino, handle: source.handle, offset: 0 };
      await one.fs.copyFileRange(caller(), from, { ino, handle: handles[0], offset: 0 }, data.length);
      assert.ok(one.chunks.copies.length > 0, 'by the servers');
      assert.deepEqual(one.meta.locked, [ino, ino]);
      assert.deepEqual(await one.read(handles[0], 0, data.length), data);
    });

    it('keeps its turn until what makes it longer is with the servers, when who writes is interrupted', async () => {
      const { one, ino, handles } = await shared();
      const release = one.chunks.hold();
      const interrupt = new AbortController();
      const given: boolean[] = [];
      const set = one.meta.locks.set.bind(one.meta.locks);
      one.meta.locks.set = async (lock, wait, signal) => {
        given.push(wait);
        await set(lock, wait, signal);
      };
      const request = {
        handle: handles[0],
        offset: 50,
        data: NEW,
        fromCache: false,
        killPriv: false,
        flags: 0,
      };
      const write = one.fs.write(caller({ signal: interrupt.signal }), ino, request);
      await settle();
      interrupt.abort();
      await assert.rejects(write, { errorName: 'EINTR' });
      assert.deepEqual(given, [true]);
      release();
      await settle();
      assert.deepEqual(given, [true, false]);
      assert.equal(await size(one, ino), 150);
    });
  });

  describe('that another one has made longer since its size was last heard of here', () => {
    const PUNCH = 3; // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    const [SEEK_DATA, SEEK_HOLE] = [3, 4];
    const LONG = 20_000;

    async function grown(): Promise<Shared> {
      const file = await shared();
      await file.two.write(file.handles[1], 100, pattern(LONG - 100, 3));
      return file;
    }

    it('is not cut off by fallocate', async () => {
      const { one, two, ino, handles } = await grown();
      await one.fs.fallocate(caller(), ino, handles[0], 0, 0, 4096);
      assert.deepEqual([await size(one, ino), await size(two, ino)], [LONG, LONG]);
      await one.fs.fallocate(caller(), ino, handles[0], 0, 0, LONG + 1);
      assert.deepEqual([await size(one, ino), await size(two, ino)], [LONG + 1, LONG + 1]);
    });

    it('is not cut off by fallocate while it is made longer, either', async () => {
      const { one, two, ino, handles } = await shared();
      let asked = 0;
      const ask = one.meta.ask.bind(one.meta);
      one.meta.ask = async (...question) => {
        const answer = await ask(...question);
        if (++asked === 1) await two.write(handles[1], 100, pattern(LONG - 100, 3));
        return answer;
      };
      await one.fs.fallocate(caller(), ino, handles[0], 0, 0, 4096);
      assert.deepEqual([await size(one, ino), await size(two, ino)], [LONG, LONG]);
    });

    it('gets a hole where one is punched, and tells of data and holes', async () => {
      const { one, two, ino, handles } = await grown();
      assert.equal(await one.fs.lseek(caller(), ino, handles[0], 10_000, SEEK_DATA), 10_000);
      assert.equal(await one.fs.lseek(caller(), ino, handles[0], 10_000, SEEK_HOLE), LONG);
      const again = await grown();
      await again.one.fs.fallocate(caller(), again.ino, again.handles[0], PUNCH, 8192, 4096);
      assert.deepEqual(await again.two.read(again.handles[1], 8192, 4096), Buffer.alloc(4096));
      await two.fs.setattr(caller(), ino, { size: 10, killPriv: false });
      await assert.rejects(one.fs.lseek(caller(), ino, handles[0], 50, SEEK_DATA), { errorName: 'ENXIO' });
    });
  });
});
