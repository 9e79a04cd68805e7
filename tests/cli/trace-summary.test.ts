import assert from 'node:assert/strict';
import { renderTrace } from '../../cli/trace.js';
import { innermost, parseSpans, TraceSummarizer } from '../../cli/trace-summary.js';
import type { Span, Stage } from '../../common/trace.js';

const span = (trace: number, stage: Stage, name: string, at: number, us: number): Span => ({
  trace,
  stage,
  name,
  at,
  us,
});

/** A create of 100 us: 10 in the mount, then the wire, the metaserver and the log inside of each other. */
const create = [
  span(1, 'fuse', 'create', 1000, 100),
  span(1, 'wire', 'meta mutation', 1010, 90),
  span(1, 'metaserver', 'mutation', 1030, 50),
  span(1, 'raft commit', 'commit', 1040, 30),
];

function summarize(spans: Iterable<Span | { dropped: number }>) {
  const summarizer = new TraceSummarizer();
  for (const one of spans) summarizer.add(one);
  return summarizer.summary();
}

describe('the summary of traces', () => {
  it('gives each moment of a request to the innermost stage, and all of it to one', () => {
    const parts = innermost(create[0] as Span, create);
    assert.deepEqual(Object.fromEntries(parts), { fuse: 10, wire: 40, metaserver: 20, 'raft commit': 30 });
  });

  it('leaves out what a request no longer waited for', () => {
    const root = span(1, 'fuse', 'write', 0, 10);
    const behind = span(1, 'wire', 'data WRITE', 8, 100);
    assert.deepEqual(Object.fromEntries(innermost(root, [root, behind])), { fuse: 8, wire: 2 });
  });

  it('counts spans of two replicas at a time once', () => {
    const root = span(1, 'fuse', 'fsync', 0, 10);
    const syncs = [span(1, 'sync', 'wait', 2, 6), span(1, 'sync', 'wait', 4, 5)];
    assert.deepEqual(Object.fromEntries(innermost(root, [...syncs, root])), { fuse: 3, sync: 7 });
  });

  it('has count, p50, p99, errors and the total of each operation, the longest first', () => {
    const lookups = Array.from({ length: 100 }, (_, i) => span(10 + i, 'fuse', 'lookup', 0, i + 1));
    (lookups[0] as Span).error = 'ENOENT';
    const { operations } = summarize([...create, ...lookups]);
    assert.deepEqual(
      operations.map(({ operation, count, errors, p50Us, p99Us, totalUs }) => ({
        operation,
        count,
        errors,
        p50Us,
        p99Us,
        totalUs,
      })),
      [
        { operation: 'lookup', count: 100, errors: 1, p50Us: 51, p99Us: 100, totalUs: 5050 },
        { operation: 'create', count: 1, errors: 0, p50Us: 100, p99Us: 100, totalUs: 100 },
      ],
    );
  });

  it('lists work that belongs to no request, and what was dropped', () => {
    const summary = summarize([...create, span(0, 'sync', 'raft log datasync', 0, 400), { dropped: 7 }]);
    assert.equal(summary.dropped, 7);
    assert.equal(summary.work.at(-1)?.name, 'raft log datasync');
    const text = renderTrace(summary);
    assert.match(text, /create +1 +0 .*fuse 10 %, wire 40 %, metaserver 20 %, raft commit 30 %/);
    assert.match(text, /5 spans, 7 more were not noted/);
  });

  it('reads what a process that was killed has left', () => {
    const text = `${JSON.stringify(create[0])}\n{"trace":1,"sta`;
    assert.deepEqual([...parseSpans(text)], [create[0]]);
  });
});
