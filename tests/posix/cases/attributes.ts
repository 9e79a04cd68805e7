import assert from 'node:assert/strict';
import type { Attributes } from '../agent.js';
import { ALICE, type Bench, BOB, type Features, touchedTimes } from '../bench.js';

const SECOND_NS = 1_000_000_000n;
const EARLIER = 1_000_000_000n * SECOND_NS + 123_456_789n;
const LATER = 2_000_000_000n * SECOND_NS + 987_654_321n;

/** chmod(2), chown(2), utimensat(2), access(2), stat(2). */
export function attributeCases(bench: Bench, features: Features): void {
  chmodCases(bench);
  chownCases(bench);
  timeCases(bench, features);
}

const MAKERS: [Attributes['type'], string, ...(string | number)[]][] = [
  ['file', 'writeAll', 'x', ''],
  ['dir', 'mkdir', 'x', 0o755],
  ['fifo', 'mkfifo', 'x', 0o644],
  ['socket', 'bind', 'x'],
  ['char', 'mknod', 'x', 0o020644, 0x103],
];

function chmodCases(bench: Bench): void {
  describe('chmod', () => {
    for (const [type, call, ...args] of MAKERS) {
      it(`${type}: sets all twelve bits and the ctime, nothing else`, async () => {
        await bench.root.ok(call, ...args);
        for (const mode of [0o7777, 0, 0o4755, 0o2755, 0o1777, 0o111]) {
          const before = await bench.root.stat('x');
          const touched = await touchedTimes(bench.root, 'x', () => bench.root.ok('chmod', 'x', mode));
          assert.equal(touched, 'ctime');
          const after = await bench.root.stat('x');
          assert.deepEqual(after, { ...before, mode, ctime: after.ctime });
        }
      });
    }

    it('is for the owner and root: EPERM; through a symbolic link it changes the target', async () => {
      await bench.root.file('f', '', 0o777);
      await bench.alice.fails('EPERM', 'chmod', 'f', 0o666);
      await bench.root.ok('chown', 'f', ALICE.uid, 0);
      await bench.alice.ok('chmod', 'f', 0o600);
      await bench.bob.fails('EPERM', 'chmod', 'f', 0o666);
      await bench.root.ok('symlink', 'f', 'l');
      await bench.alice.ok('chmod', 'l', 0o640);
      assert.equal((await bench.root.stat('f')).mode, 0o640);
      assert.equal((await bench.root.lstat('l')).mode, 0o777);
    });

    it('an owner outside the group cannot keep setgid on a file; root and members can', async () => {
      await bench.root.file('f');
      await bench.root.ok('chown', 'f', ALICE.uid, 64_003);
      await bench.alice.ok('chmod', 'f', 0o2755);
      assert.equal((await bench.root.stat('f')).mode, 0o755);
      await bench.root.ok('chown', 'f', BOB.uid, 64_003);
      await bench.bob.ok('chmod', 'f', 0o2755);
      assert.equal((await bench.root.stat('f')).mode, 0o2755);
      await bench.root.ok('chown', 'f', ALICE.uid, 64_003);
      await bench.root.ok('chmod', 'f', 0o2755);
      assert.equal((await bench.root.stat('f')).mode, 0o2755);
    });

    it('fchmod works on a file without a name', async () => {
      const fd = await bench.root.open('f', 'O_RDWR|O_CREAT', 0o644);
      await bench.root.ok('unlink', 'f');
      await bench.root.ok('fchmod', fd, 0o4711);
      assert.equal((await bench.root.fstat(fd)).mode, 0o4711);
    });
  });

  describe('access', () => {
    it('asks with the real user: read, write, execute; root may execute when anybody may', async () => {
      await bench.root.file('f', '', 0o640);
      await bench.root.ok('chown', 'f', ALICE.uid, 64_003);
      for (const [agent, allowed] of [
        [bench.alice, [4, 2, 6]],
        [bench.bob, [4]],
        [bench.root, [4, 2, 6]],
      ] as const) {
        for (let mask = 1; mask < 8; mask++) {
          if ((allowed as readonly number[]).includes(mask)) await agent.ok('access', 'f', mask);
          else await agent.fails('EACCES', 'access', 'f', mask);
        }
      }
      await bench.root.ok('chmod', 'f', 0o641);
      await bench.root.ok('access', 'f', 1);
    });
  });
}

function chownCases(bench: Bench): void {
  describe('chown', () => {
    for (const [type, call, ...args] of MAKERS) {
      it(`${type}: owner and group change, and the ctime alone of the times`, async () => {
        await bench.root.ok(call, ...args);
        await bench.root.ok('chmod', 'x', 0o755);
        for (const [uid, gid, expected] of [
          [123, 456, [123, 456]],
          [-1, 789, [123, 789]],
          [321, -1, [321, 789]],
          [0, 0, [0, 0]],
          [4_294_967_294, 4_294_967_294, [4_294_967_294, 4_294_967_294]],
        ] as const) {
          const touched = await touchedTimes(bench.root, 'x', () => bench.root.ok('chown', 'x', uid, gid));
          assert.equal(touched, 'ctime');
          const now = await bench.root.stat('x');
          assert.deepEqual([now.uid, now.gid, now.mode], [...expected, 0o755]);
        }
      });
    }

    it('chown(-1, -1) changes the ctime alone', async () => {
      await bench.root.file('f');
      const before = await bench.root.stat('f');
      assert.equal(await touchedTimes(bench.root, 'f', () => bench.root.ok('chown', 'f', -1, -1)), 'ctime');
      const after = await bench.root.stat('f');
      assert.deepEqual(after, { ...before, ctime: after.ctime });
    });

    it('chown(-1, -1) by a stranger takes nothing away, also of a file that was written a moment before', async () => {
      for (const mode of [0o4644, 0o2755, 0o2666]) {
        await bench.alice.file('f', 'written', mode);
        await bench.bob.fails('EPERM', 'chown', 'f', -1, -1);
        assert.equal((await bench.root.stat('f')).mode, mode);
      }
    });

    it('lchown changes a symbolic link itself', async () => {
      await bench.root.file('f');
      await bench.root.ok('symlink', 'f', 'l');
      await bench.root.ok('lchown', 'l', 123, 456);
      assert.equal((await bench.root.lstat('l')).uid, 123);
      assert.equal((await bench.root.stat('f')).uid, 0);
      await bench.root.ok('chown', 'l', 321, -1);
      assert.equal((await bench.root.stat('l')).uid, 321);
    });

    it('users: EPERM for another owner or a foreign group; the owner may give it to a group of his', async () => {
      await bench.bob.file('f');
      await bench.alice.fails('EPERM', 'chown', 'f', ALICE.uid, -1);
      await bench.bob.fails('EPERM', 'chown', 'f', ALICE.uid, -1);
      await bench.bob.fails('EPERM', 'chown', 'f', -1, ALICE.gid);
      await bench.bob.fails('EPERM', 'chown', 'f', 0, 0);
      await bench.bob.ok('chown', 'f', BOB.uid, 64_003);
      assert.equal((await bench.root.stat('f')).gid, 64_003);
      await bench.alice.fails('EPERM', 'chown', 'f', -1, 64_003);
    });

    it('clears setuid, and setgid where the group may execute, on files; never on directories', async () => {
      await bench.root.file('f');
      await bench.root.ok('mkdir', 'd');
      for (const [mode, left] of [
        [0o4755, 0o755],
        [0o2755, 0o755],
        [0o6777, 0o777],
        [0o2745, 0o2745],
        [0o6745, 0o2745],
        [0o1755, 0o1755],
      ] as const) {
        for (const [uid, gid] of [
          [0, 0],
          [-1, 0],
          [0, -1],
        ] as const) {
          await bench.root.ok('chmod', 'f', mode);
          await bench.root.ok('chown', 'f', uid, gid);
          assert.equal((await bench.root.stat('f')).mode, left, `${mode.toString(8)} ${uid} ${gid}`);
        }
        await bench.root.ok('chmod', 'd', mode);
        await bench.root.ok('chown', 'd', 0, 0);
        assert.equal((await bench.root.stat('d')).mode, mode);
      }
    });

    it('by an owner who is not root it clears both bits', async () => {
      await bench.bob.file('f');
      for (const [mode, left] of [
        [0o6555, 0o555],
        [0o4555, 0o555],
      ] as const) {
        await bench.bob.ok('chmod', 'f', mode);
        await bench.bob.ok('chown', 'f', -1, 64_003);
        assert.equal((await bench.root.stat('f')).mode, left);
        await bench.bob.ok('chown', 'f', -1, BOB.gid);
      }
    });

    it('a new owner has his rights at once, the old one none', async () => {
      await bench.root.file('f', 'x', 0o600);
      await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
      await bench.root.ok('chown', 'f', ALICE.uid, ALICE.gid);
      assert.equal(await bench.alice.ok('readAll', 'f'), 'x');
      await bench.root.ok('chown', 'f', 0, 0);
      await bench.alice.fails('EACCES', 'open', 'f', 'O_RDONLY');
    });
  });
}

function timeCases(bench: Bench, features: Features): void {
  describe('utimensat', () => {
    it('sets atime and mtime to the nanosecond, and the ctime to now', async () => {
      for (const make of [
        ['writeAll', 'x', ''],
        ['mkdir', 'x'],
        ['mkfifo', 'x'],
      ] as const) {
        await bench.root.ok(make[0], ...make.slice(1));
        const before = await bench.root.stat('x');
        await bench.root.ok('tick');
        await bench.root.ok('utimensat', 'x', String(EARLIER), String(LATER));
        const after = await bench.root.stat('x');
        assert.deepEqual([after.atime, after.mtime], [String(EARLIER), String(LATER)]);
        assert.ok(BigInt(after.ctime) > BigInt(before.ctime));
        await bench.root.ok(make[0] === 'mkdir' ? 'rmdir' : 'unlink', 'x');
      }
    });

    it('UTIME_OMIT leaves a time, UTIME_NOW takes the present', async () => {
      await bench.root.file('f');
      await bench.root.ok('utimensat', 'f', String(EARLIER), String(LATER));
      const made = await bench.root.stat('f');
      await bench.root.ok('tick');
      await bench.root.ok('utimensat', 'f', 'omit', String(EARLIER));
      assert.deepEqual(pick(await bench.root.stat('f')), [String(EARLIER), String(EARLIER)]);
      await bench.root.ok('utimensat', 'f', String(LATER), 'omit');
      assert.deepEqual(pick(await bench.root.stat('f')), [String(LATER), String(EARLIER)]);
      await bench.root.ok('utimensat', 'f', 'now', 'omit');
      const now = await bench.root.stat('f');
      assert.ok(BigInt(now.atime) >= BigInt(made.ctime) && now.mtime === String(EARLIER));
      const touched = await touchedTimes(bench.root, 'f', () =>
        bench.root.ok('utimensat', 'f', 'omit', 'omit'),
      );
      assert.equal(touched, '');
    });

    it('times before 1970 and after 2038 are kept', async () => {
      await bench.root.file('f');
      for (const ns of [-1n, -1_000_000_000n * SECOND_NS - 5n, 0n, 2n ** 32n * SECOND_NS + 1n, 1n]) {
        await bench.root.ok('utimensat', 'f', floored(ns), floored(ns));
        assert.deepEqual(pick(await bench.root.stat('f')), [String(ns), String(ns)]);
      }
    });

    it('EINVAL for nanoseconds out of range', async () => {
      await bench.root.file('f');
      await bench.root.fails('EINVAL', 'utimensat', 'f', [0, 1_000_000_000], [0, 0]);
      await bench.root.fails('EINVAL', 'utimensat', 'f', [0, 0], [0, -1]);
    });

    it('times of a symbolic link itself', async () => {
      await bench.root.file('f');
      await bench.root.ok('symlink', 'f', 'l');
      const before = await bench.root.stat('f');
      await bench.root.ok('utimensat', 'l', String(EARLIER), String(LATER), true);
      assert.deepEqual(pick(await bench.root.lstat('l')), [String(EARLIER), String(LATER)]);
      assert.deepEqual(await bench.root.stat('f'), before);
    });

    it('the present time is for whoever may write, other times for the owner: EACCES, EPERM', async () => {
      await bench.root.file('f', '', 0o644);
      await bench.alice.fails('EACCES', 'utimensat', 'f', 'now', 'now');
      await bench.alice.fails('EPERM', 'utimensat', 'f', String(EARLIER), String(LATER));
      await bench.alice.fails('EPERM', 'utimensat', 'f', 'now', 'omit');
      await bench.root.ok('chmod', 'f', 0o666);
      await bench.alice.ok('utimensat', 'f', 'now', 'now');
      await bench.alice.fails('EPERM', 'utimensat', 'f', String(EARLIER), 'now');
      await bench.root.ok('chmod', 'f', 0);
      await bench.root.ok('chown', 'f', ALICE.uid, 0);
      await bench.alice.ok('utimensat', 'f', String(EARLIER), String(LATER));
      await bench.alice.ok('utimensat', 'f', 'now', 'now');
    });

    it('futimens works on an open file without a name, whatever it was opened for', async () => {
      const fd = await bench.root.open('f', 'O_RDONLY|O_CREAT');
      await bench.root.ok('unlink', 'f');
      await bench.root.ok('futimens', fd, String(EARLIER), String(LATER));
      assert.deepEqual(pick(await bench.root.fstat(fd)), [String(EARLIER), String(LATER)]);
    });

    it('times set while the file is being written are not undone by its close', async () => {
      const fd = await bench.root.open('f', 'O_WRONLY|O_CREAT');
      await bench.root.ok('write', fd, 'x'.repeat(100_000));
      await bench.root.ok('futimens', fd, String(EARLIER), String(LATER));
      await bench.root.ok('close', fd);
      assert.deepEqual(pick(await bench.root.stat('f')), [String(EARLIER), String(LATER)]);
      assert.equal((await bench.root.stat('f')).size, 100_000);
    });
  });

  describe('times of operations', () => {
    it('stat, access, open, close, lseek and readlink change none', async () => {
      await bench.root.file('f', 'x');
      const touched = await touchedTimes(bench.root, 'f', async () => {
        await bench.root.ok('access', 'f', 7).catch(() => undefined);
        const fd = await bench.root.open('f', 'O_RDWR');
        await bench.root.ok('lseek', fd, 100, 'SEEK_SET');
        await bench.root.ok('close', fd);
      });
      assert.equal(touched, '');
    });

    it('write changes mtime and ctime, and a write of nothing does not', async () => {
      await bench.root.file('f', 'x');
      const fd = await bench.root.open('f', 'O_WRONLY');
      assert.equal(await touchedTimes(bench.root, 'f', () => bench.root.ok('write', fd, 'y')), 'mtime ctime');
      assert.equal(
        await touchedTimes(bench.root, 'f', () => bench.root.ok('pwrite', fd, 'y', 9)),
        'mtime ctime',
      );
      assert.equal(await touchedTimes(bench.root, 'f', () => bench.root.ok('write', fd, '')), '');
    });

    it('times that a write has shown stay through fsync and close', async () => {
      const fd = await bench.root.open('f', 'O_WRONLY|O_CREAT');
      await bench.root.ok('write', fd, 'x');
      const written = await bench.root.fstat(fd);
      await bench.root.ok('tick');
      await bench.root.ok('fsync', fd);
      assert.deepEqual(pickTimes(await bench.root.fstat(fd)), pickTimes(written));
      await bench.root.ok('write', fd, 'y');
      const again = await bench.root.fstat(fd);
      await bench.root.ok('tick');
      await bench.root.ok('close', fd);
      assert.deepEqual(pickTimes(await bench.root.stat('f')), pickTimes(again));
    });

    it('O_NOATIME: neither the open nor a read changes the atime', async () => {
      await bench.root.file('f', 'x');
      await bench.root.ok('readAll', 'f');
      await bench.root.ok('utimensat', 'f', '1000000000', '2000000000');
      const fd = await bench.root.open('f', 'O_RDONLY|O_NOATIME');
      await bench.root.ok('read', fd, 10);
      assert.equal((await bench.root.stat('f')).atime, '1000000000');
    });

    it('a read of something new brings the atime behind the mtime, also of a directory', async function () {
      if (!features.relatime) this.skip();
      await bench.root.file('f', 'x');
      await bench.root.ok('mkdir', 'd');
      await bench.root.ok('mkdir', 'd/e');
      for (const [path, read] of [
        ['f', () => bench.root.ok('readAll', 'f')],
        ['d', () => bench.root.ok('list', 'd')],
      ] as const) {
        await bench.root.ok('utimensat', path, String(EARLIER), String(LATER - SECOND_NS * 500_000_000n));
        assert.equal(await touchedTimes(bench.root, path, read), 'atime');
      }
    });

    it('following or reading a symbolic link brings its atime behind its mtime', async function () {
      if (!features.relatime) this.skip();
      await bench.root.file('f', 'x');
      for (const read of ['readlink', 'stat']) {
        await bench.root.ok('symlink', 'f', read);
        const made = await bench.root.lstat(read);
        await bench.root.ok('tick');
        await bench.root.ok(read, read);
        const after = await bench.root.lstat(read);
        assert.ok(BigInt(after.atime) > BigInt(made.atime), read);
        assert.deepEqual(pickTimes(after), pickTimes(made));
      }
    });
  });
}

/** [seconds, nanoseconds], for negative times too. */
function floored(ns: bigint): number[] {
  const sec = ns >= 0n ? ns / SECOND_NS : (ns - SECOND_NS + 1n) / SECOND_NS;
  return [Number(sec), Number(ns - sec * SECOND_NS)];
}

function pick(attributes: Attributes): string[] {
  return [attributes.atime, attributes.mtime];
}

function pickTimes({ mtime, ctime }: Attributes): string[] {
  return [mtime, ctime];
}
