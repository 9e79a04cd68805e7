import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { LmdbKv } from '../../../metaserver/store/lmdb-kv.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { b, dumpKv, errorOf, Namespace, type Op, throwsWith } from './harness.js';
import { Model } from './model.js';
import { FIRST_OPS, opArbitrary } from './random-ops.js';

/** Everything that the namespace shows equals the model, and its own books agree. */
function compare(fs: Namespace, model: Model): void {
  let allocated = 0;
  let orphans = 0;
  for (let ino = 1; ino <= model.lastIno + 2; ino++) {
    const node = model.nodes.get(ino);
    if (!node) {
      assert.throws(() => fs.get(ino), throwsWith('ENOENT'), `inode ${ino}`);
      continue;
    }
    const attr = fs.get(ino);
    const shown = [attr.mode, attr.uid, attr.gid, attr.nlink, attr.truncateSeq, attr.allocated];
    assert.deepEqual(
      shown,
      [node.mode, node.uid, node.gid, model.nlink(node), node.truncateSeq, node.allocated],
      `inode ${ino}`,
    );
    allocated += attr.allocated;
    if (attr.nlink === 0) orphans++;
    const names = fs.read({ $case: 'listXattr', value: { ino } }) as { names: Buffer[] };
    const [i, a, A] = [0x10, 0x20, 0x80].map((bit) => ((attr.flags ?? 0) & bit) !== 0);
    assert.deepEqual([i, a, A], [node.immutable, node.appendOnly, node.noAtime], `flags of ${ino}`);
    assert.deepEqual(names.names.map(String), [...node.xattrs.keys()].sort());
    if (!node.children) {
      assert.equal(attr.size, node.size, `size of ${ino}`);
      continue;
    }
    const page = fs.page(ino, 0, 0, true);
    const expected = [...node.children].map(([name, child]) => [
      name,
      child.ino,
      child.mode >>> 12,
      child.ino,
    ]);
    const listed = page.entries.map((entry) => [String(entry.name), entry.ino, entry.type, entry.attr?.ino]);
    assert.deepEqual(listed, expected, `directory ${ino}`);
    assert.equal(page.parent, model.parentOf(node).ino, `".." of ${ino}`);
    for (const [name, child] of node.children) assert.equal(fs.lookup(ino, name).ino, child.ino);
  }
  assert.deepEqual(fs.machine.usage(), { inodes: model.nodes.size, orphans, allocatedBytes: allocated });
  assert.equal(dumpKv(fs.kv).filter((line) => line.startsWith('49')).length, model.nodes.size);
}

function runBoth(fs: Namespace, model: Model, op: Op): void {
  const result = fs.mutate(op);
  if (errorOf(result) === 'UNAVAILABLE') return;
  assert.equal(errorOf(result), model.run(op) ?? 'ok', JSON.stringify(op));
}

describe('the namespace against a naive model', () => {
  it('gives the same results, errors, listings, counts and totals for random operations', () => {
    fc.assert(
      fc.property(fc.array(opArbitrary, { minLength: 20, maxLength: 80 }), (ops) => {
        const fs = new Namespace();
        const model = new Model();
        for (const op of [...FIRST_OPS, ...ops]) runBoth(fs, model, op);
        compare(fs, model);
      }),
      { numRuns: 150, seed: 5 },
    );
  }).timeout(30_000);

  it('does so on LMDB too, whose content equals that in memory', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-model-'));
    const [ops] = fc.sample(fc.array(opArbitrary, { minLength: 1500, maxLength: 1500 }), {
      numRuns: 1,
      seed: 3,
    });
    const kv = LmdbKv.open(join(directory, 'store'), { flushAtBytes: 10_000 });
    const fs = new Namespace(kv);
    const inMemory = new Namespace(new MemoryKv());
    const model = new Model();
    for (const [index, op] of [...FIRST_OPS, ...(ops as Op[])].entries()) {
      runBoth(fs, model, op);
      inMemory.mutate(op);
      if (index % 50 === 0) await new Promise(setImmediate);
    }
    compare(fs, model);
    assert.deepEqual(dumpKv(kv), dumpKv(inMemory.kv));
    await kv.close();
    rmSync(directory, { recursive: true });
  }).timeout(30_000);

  it('lists a directory completely, each entry once, while others come and go between the pages', () => {
    const change = fc.record({ add: fc.boolean(), n: fc.nat(30) });
    fc.assert(
      fc.property(
        fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 30 }),
        fc.integer({ min: 1, max: 4 }),
        (rounds, size) => {
          const fs = new Namespace();
          const stable = Array.from({ length: 12 }, (_, n) => `stable-${n}`);
          for (const [n, name] of stable.entries()) {
            fs.create(fs.root, name);
            fs.create(fs.root, `x${n}`);
          }
          const seen: string[] = [];
          let cookie = 0;
          for (let round = 0, end = false; !end; round++) {
            const page = fs.page(fs.root, cookie, size);
            seen.push(...page.entries.map((entry) => String(entry.name)));
            cookie = page.entries.at(-1)?.cookie ?? cookie;
            ({ end } = page);
            for (const { add, n } of rounds[round] ?? []) {
              fs.mutate(
                add
                  ? fs.link(fs.lookup(fs.root, 'stable-0').ino, fs.root, `x${n}`)
                  : fs.unlink(fs.root, `x${n}`),
              );
            }
          }
          assert.deepEqual(
            seen.filter((name) => name.startsWith('stable')),
            stable,
          );
        },
      ),
      { numRuns: 60, seed: 9 },
    );
  });

  it('removes everything it made: nothing is left when all names and data are gone', () => {
    fc.assert(
      fc.property(fc.array(opArbitrary, { maxLength: 60 }), (ops) => {
        const fs = new Namespace();
        for (const op of [...FIRST_OPS, ...ops]) fs.mutate(op);
        empty(fs, fs.root);
        for (const { ino } of fs.machine.reclaims(undefined, 1000).filter((item) => item.truncateSeq === 0)) {
          fs.command({ $case: 'reclaimDone', value: { ino, truncateSeq: 0 } });
        }
        assert.deepEqual(fs.machine.usage(), { inodes: 1, orphans: 0, allocatedBytes: 0 });
        fs.command({ $case: 'expireSession', value: { session: fs.session } });
        fs.command({ $case: 'sessionFenced', value: { session: fs.session } });
        const tags = dumpKv(fs.kv).map((line) => String(Buffer.from(line.slice(0, 2), 'hex')));
        const rootXattrs = tags.filter((tag) => tag === 'X').length;
        assert.ok(rootXattrs <= 2);
        assert.deepEqual(
          tags.filter((tag) => tag !== 'X' && tag !== 'S'),
          ['I'],
        );
        assert.deepEqual([...fs.kv.range(b('P'), b('S'))], []);
      }),
      { numRuns: 150, seed: 21 },
    );
  });
});

function empty(fs: Namespace, directory: number): void {
  fs.ok({ $case: 'setFlags', value: { ino: directory, flags: 0, uid: 0 } });
  for (const { ino, name, type } of fs.page(directory).entries) {
    const text = name.toString('latin1');
    if (type === 4) {
      empty(fs, ino);
      fs.ok(fs.rmdir(directory, text));
      continue;
    }
    // Of a symbolic link there are none that would be in the way.
    if (type === 8) fs.ok({ $case: 'setFlags', value: { ino, flags: 0, uid: 0 } });
    fs.ok(fs.unlink(directory, text));
  }
}
