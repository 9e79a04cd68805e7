import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import type { Kv, KvReader } from '../../metaserver/store/kv.js';

export interface KvHarness {
  /** A store in the file `path`, made when missing; opened again it holds what was flushed. */
  open(path: string): Promise<Kv>;
  /** The store in a file that `backup` wrote. */
  openBackup(path: string): Promise<Kv>;
  /** The same store after the process died without closing it. */
  crash(kv: Kv, path: string): Promise<Kv>;
}

const b = (text: string): Buffer => Buffer.from(text, 'latin1');
const FIRST: Buffer = Buffer.from([0]);
const LAST: Buffer = Buffer.from([0xff, 0xff]);

function dump(
  kv: Kv,
  options?: { limit?: number; reverse?: boolean },
  start: Buffer = FIRST,
  end: Buffer = LAST,
): string[] {
  return [...kv.range(start, end, options)].map(
    ({ key, value }) => `${key.toString('latin1')}=${value.toString('latin1')}`,
  );
}

/** What every implementation of Kv must do. */
export function kvContract(name: string, harness: KvHarness): void {
  describe(`${name} as a Kv`, () => {
    let directory: string;
    let kv: Kv;

    beforeEach(async () => {
      directory = await mkdtemp(join(tmpdir(), 'holdfast-kv-'));
      kv = await harness.open(join(directory, 'store'));
    });

    afterEach(async () => {
      await kv.close();
      await rm(directory, { recursive: true });
    });

    const fill = (...pairs: string[]): void =>
      kv.transaction((txn) => {
        for (const pair of pairs) txn.put(b(pair[0] as string), b(pair.slice(1)));
      });

    it('returns what was put, and undefined for what was not', () => {
      fill('a1', 'b');
      assert.equal(kv.get(b('a'))?.toString('latin1'), '1');
      assert.equal(kv.get(b('b'))?.length, 0);
      assert.equal(kv.get(b('c')), undefined);
    });

    it('lets a value be looked at as get() returns it, in a transaction and a view too', async () => {
      const large = `l${'x'.repeat(100_000)}`;
      fill('along', 'b', 'cxx', large);
      const look = (reader: KvReader): (string | undefined)[] =>
        ['a', 'b', 'l', 'c', 'n'].map((key) => reader.peek(b(key))?.toString('latin1'));
      const expected = ['long', '', large.slice(1), 'xx', undefined];
      assert.deepEqual(look(kv), expected);
      await kv.flushed();
      assert.deepEqual(look(kv), expected);
      assert.deepEqual(kv.transaction(look), expected);
      const view = await kv.view();
      assert.deepEqual(look(view), expected);
      view.close();
      assert.throws(() => view.peek(b('a')), /the view is closed/);
    });

    it('orders keys as memcmp does, over all byte values and lengths', async () => {
      const keys = [[0], [0, 0], [1], [0x7f], [0x7f, 0], [0x80], [0xfe, 0xff], [0xff], [0xff, 0]].map((k) =>
        Buffer.from(k),
      );
      for (const flush of [false, true]) {
        kv.transaction((txn) => {
          for (const key of keys.toReversed()) txn.put(key, b('v'));
        });
        if (flush) await kv.flushed();
        assert.deepEqual(
          [...kv.range(FIRST, LAST)].map((entry) => entry.key),
          keys,
        );
      }
    });

    it('takes keys of 1,024 bytes and refuses empty and longer ones', async () => {
      const key = Buffer.alloc(1024, 7);
      kv.transaction((txn) => txn.put(key, b('long')));
      await kv.flushed();
      assert.equal(kv.get(key)?.toString('latin1'), 'long');
      assert.throws(() => kv.transaction((txn) => txn.put(Buffer.alloc(1025), b(''))), /key of 1025 bytes/);
      assert.throws(() => kv.transaction((txn) => txn.put(Buffer.alloc(0), b(''))), /key of 0 bytes/);
    });

    it('keeps values of 100,000 bytes', async () => {
      const value = Buffer.alloc(100_000, 'xyz');
      kv.transaction((txn) => txn.put(b('k'), value));
      await kv.flushed();
      assert.ok(kv.get(b('k'))?.equals(value));
    });

    for (const flush of [false, true]) {
      const when = flush ? 'flushed' : 'fresh';
      it(`reads ranges of ${when} entries: half open, limited, both ways`, async () => {
        fill('a1', 'b2', 'c3', 'd4');
        if (flush) await kv.flushed();
        assert.deepEqual(dump(kv), ['a=1', 'b=2', 'c=3', 'd=4']);
        assert.deepEqual(dump(kv, {}, b('b'), b('d')), ['b=2', 'c=3']);
        assert.deepEqual(dump(kv, { reverse: true }, b('b'), b('d')), ['c=3', 'b=2']);
        assert.deepEqual(dump(kv, { limit: 2 }), ['a=1', 'b=2']);
        assert.deepEqual(dump(kv, { limit: 2, reverse: true }), ['d=4', 'c=3']);
        assert.deepEqual(dump(kv, { limit: 0 }), []);
        assert.deepEqual(dump(kv, {}, b('a0'), b('b0')), ['b=2']);
        assert.deepEqual(dump(kv, { reverse: true }, b('a0'), b('b0')), ['b=2']);
        assert.deepEqual(dump(kv, {}, b('c'), b('b')), []);
        assert.deepEqual(dump(kv, {}, b('x'), b('z')), []);
      });
    }

    it('shows a transaction its own writes, in gets and ranges', async () => {
      fill('a1', 'b2');
      await kv.flushed();
      kv.transaction((txn) => {
        txn.put(b('c'), b('3'));
        txn.delete(b('a'));
        txn.put(b('b'), b('9'));
        assert.equal(txn.get(b('a')), undefined);
        assert.equal(txn.get(b('b'))?.toString('latin1'), '9');
        assert.deepEqual(
          [...txn.range(FIRST, LAST)].map((e) => e.key.toString('latin1')),
          ['b', 'c'],
        );
      });
      assert.deepEqual(dump(kv), ['b=9', 'c=3']);
    });

    it('rolls back everything when the transaction throws', async () => {
      fill('a1', 'b2');
      await kv.flushed();
      fill('c3');
      const failing = (): void =>
        kv.transaction((txn) => {
          for (const key of ['a', 'c', 'a']) txn.delete(b(key));
          txn.put(b('b'), b('8'));
          txn.put(b('b'), b('9'));
          txn.put(b('d'), b('4'));
          throw new Error('no');
        });
      assert.throws(failing, /^Error: no$/);
      assert.deepEqual(dump(kv), ['a=1', 'b=2', 'c=3']);
    });

    it('refuses nested and asynchronous transactions, and writes after the end', () => {
      assert.throws(() => kv.transaction(() => kv.transaction(() => 1)), /do not nest/);
      assert.throws(() => kv.transaction(async () => 1), /synchronous/);
      const txn = kv.transaction((inner) => inner);
      assert.throws(() => txn.put(b('a'), b('1')), /has ended/);
      assert.equal(
        kv.transaction(() => 7),
        7,
      );
    });

    it('stops a range when its reader does', async () => {
      fill('a1', 'b2', 'c3');
      await kv.flushed();
      fill('d4');
      for (const { key } of kv.range(FIRST, LAST)) if (key.equals(b('b'))) break;
      assert.deepEqual(dump(kv, { limit: 1 }), ['a=1']);
    });

    it('keeps everything over a close', async () => {
      fill('a1');
      await kv.flushed();
      fill('b2');
      await kv.close();
      kv = await harness.open(join(directory, 'store'));
      assert.deepEqual(dump(kv), ['a=1', 'b=2']);
    });

    it('keeps after a crash what was flushed, and never half of a transaction', async () => {
      fill('a1', 'b1');
      await kv.flushed();
      fill('a2', 'b2', 'c2');
      kv = await harness.crash(kv, join(directory, 'store'));
      assert.ok(['a=1,b=1', 'a=2,b=2,c=2'].includes(dump(kv).join()), dump(kv).join());
    });

    it('covers with flushed() also what was written while an earlier flush ran', async () => {
      fill('a1');
      const first = kv.flushed();
      fill('b2');
      await kv.flushed();
      await first;
      kv = await harness.crash(kv, join(directory, 'store'));
      assert.deepEqual(dump(kv), ['a=1', 'b=2']);
    });

    it('backs up one moment: nothing of later transactions', async () => {
      fill('a1', 'b2');
      const path = join(directory, 'copy');
      await kv.backup(path);
      fill('a9', 'c3');
      const copy = await harness.openBackup(path);
      assert.deepEqual(dump(copy), ['a=1', 'b=2']);
      await copy.close();
      await assert.rejects(kv.backup(path), /exist/i);
      assert.deepEqual(dump(kv), ['a=9', 'b=2', 'c=3']);
    });

    it('shows in a view one moment, whatever is committed, flushed and read meanwhile', async () => {
      fill('a1', 'b2');
      await kv.flushed();
      fill('c3');
      const view = await kv.view();
      fill('a9', 'd4');
      kv.transaction((txn) => txn.delete(b('b')));
      await kv.flushed();
      assert.deepEqual(dump(kv), ['a=9', 'c=3', 'd=4']);
      const seen = (options?: { limit?: number; reverse?: boolean }): string[] =>
        [...view.range(FIRST, LAST, options)].map(({ key, value }) => `${key}=${value}`);
      assert.deepEqual(seen(), ['a=1', 'b=2', 'c=3']);
      assert.deepEqual(seen({ limit: 2, reverse: true }), ['c=3', 'b=2']);
      assert.deepEqual([...view.range(b('b'), b('b'))], []);
      assert.equal(view.get(b('a'))?.toString(), '1');
      assert.equal(view.get(b('d')), undefined);
      view.close();
      view.close();
      assert.throws(() => view.get(b('a')), /the view is closed/);
    });

    it('ends its views when it is closed', async () => {
      fill('a1');
      const view = await kv.view();
      await kv.close();
      assert.throws(() => view.get(b('a')), /the view is closed/);
      assert.throws(() => view.range(FIRST, LAST), /the view is closed/);
      kv = await harness.open(join(directory, 'again'));
    });

    it('equals a naive sorted model under random operations, flushes and crash-free restarts', async () => {
      const key = fc
        .uint8Array({ minLength: 1, maxLength: 3 })
        .map((bytes) => bytes.map((byte) => byte & 0xc3));
      const operation = fc.oneof(
        fc.record({ op: fc.constant('put' as const), key, value: fc.nat(99) }),
        fc.record({ op: fc.constant('delete' as const), key }),
        fc.record({
          op: fc.constant('range' as const),
          key,
          end: key,
          limit: fc.integer({ min: 1, max: 9 }),
          reverse: fc.boolean(),
        }),
        fc.record({ op: fc.constant('flush' as const), key }),
        fc.record({ op: fc.constant('start-flush' as const), key }),
        fc.record({ op: fc.constant('fail' as const), key }),
      );
      await fc.assert(
        fc.asyncProperty(fc.array(operation, { maxLength: 60 }), async (operations) => {
          kv.transaction((txn) => {
            for (const entry of [...txn.range(FIRST, LAST)]) txn.delete(entry.key);
          });
          const model = new Map<string, string>();
          for (const step of operations) {
            const name = b(Buffer.from(step.key).toString('latin1'));
            if (step.op === 'put') {
              kv.transaction((txn) => txn.put(name, b(`${step.value}`)));
              model.set(name.toString('latin1'), `${step.value}`);
            } else if (step.op === 'delete') {
              kv.transaction((txn) => txn.delete(name));
              model.delete(name.toString('latin1'));
            } else if (step.op === 'fail') {
              const fail = (): void =>
                kv.transaction((txn) => {
                  txn.put(name, b('lost'));
                  throw new Error('rolled back');
                });
              assert.throws(fail, /rolled back/);
            } else if (step.op === 'flush') await kv.flushed();
            else if (step.op === 'start-flush') void kv.flushed();
            else {
              const end = Buffer.from(step.end).toString('latin1');
              const expected = [...model]
                .filter(([k]) => k >= name.toString('latin1') && k < end)
                .sort(([x], [y]) => (x < y === step.reverse ? 1 : -1))
                .slice(0, step.limit)
                .map(([k, v]) => `${k}=${v}`);
              assert.deepEqual(
                dump(kv, { limit: step.limit, reverse: step.reverse }, name, b(end)),
                expected,
              );
            }
            assert.equal(kv.get(name)?.toString('latin1'), model.get(name.toString('latin1')));
          }
          await kv.flushed();
          assert.equal(dump(kv).length, model.size);
        }),
        { numRuns: 60, seed: 7 },
      );
    });
  });
}
