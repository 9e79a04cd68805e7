import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { RaftEntry } from '../../../metaserver/raft/types.js';
import { EntryWindow, entryBytes } from '../../../metaserver/replica/entry-window.js';
import { RaftEntryType } from '../../../proto/gen/raft.js';

function entry(index: number, term: number, bytes = 0): RaftEntry {
  return { index, term, type: RaftEntryType.ENTRY_COMMAND, data: Buffer.alloc(bytes) };
}

describe('EntryWindow', () => {
  it('refuses gaps, disorder and entries behind the base', () => {
    const window = new EntryWindow({ index: 10, term: 2 });
    assert.throws(() => window.append([entry(12, 2)]), /gap/);
    assert.throws(() => window.append([entry(10, 2)]), /behind the cut/);
    assert.throws(() => window.append([entry(11, 2), entry(13, 2)]), /out of order/);
    assert.throws(() => new EntryWindow({ index: 0, term: 0 }).cut(1), /not in the log/);
  });

  it('keeps as many entries as asked for, fewer when they are heavy', () => {
    const window = new EntryWindow({ index: 0, term: 0 });
    window.append(Array.from({ length: 10 }, (_, i) => entry(i + 1, 1, 100)));
    assert.equal(window.cutPoint(4, 1 << 20), 6);
    assert.equal(window.cutPoint(4, entryBytes(entry(1, 1, 100)) * 2), 8);
    assert.equal(window.cutPoint(50, 1 << 20), 0);
  });

  it('agrees with a naive map', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('append' as const), back: fc.nat(3), count: fc.nat(5) }),
      fc.record({ kind: fc.constant('cut' as const), share: fc.nat(100) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const window = new EntryWindow({ index: 5, term: 1 });
        const naive = new Map<number, RaftEntry>();
        let base = 5;
        let last = 5;
        let term = 1;
        for (const each of steps) {
          if (each.kind === 'append') {
            const first = Math.max(base, last - each.back) + 1;
            const entries = Array.from({ length: each.count }, (_, i) => entry(first + i, term, i));
            window.append(entries);
            if (each.count > 0) {
              for (let i = first; i <= last; i++) naive.delete(i);
              for (const one of entries) naive.set(one.index, one);
              last = first + each.count - 1;
              term++;
            }
          } else {
            const index = base + Math.floor(((last - base) * each.share) / 100);
            window.cut(index);
            for (let i = base + 1; i <= index; i++) naive.delete(i);
            base = index;
          }
          assert.equal(window.firstIndex, base + 1);
          assert.equal(window.lastIndex, last);
          assert.deepEqual(window.slice(base + 1, last + 1, Number.MAX_SAFE_INTEGER), [...naive.values()]);
          assert.equal(window.slice(base, last, 100), undefined);
          assert.equal(window.term(last + 1), undefined);
          assert.equal(
            window.bytes,
            [...naive.values()].reduce((sum, one) => sum + entryBytes(one), 0),
          );
        }
      }),
    );
  });
});
