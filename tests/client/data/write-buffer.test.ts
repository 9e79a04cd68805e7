import assert from 'node:assert/strict';
import type { Extent } from '../../../client/data/extent.js';
import { WriteBuffer } from '../../../client/data/write-buffer.js';
import { pattern } from '../support/data-harness.js';

const SLOT = 1000;

function setUp() {
  const requeued: Extent[] = [];
  const full: Extent[] = [];
  const buffer = new WriteBuffer(SLOT, (extent) => requeued.push(extent));
  const write = (offset: number, data: Buffer): void =>
    buffer.write(offset, data, (extent) => full.push(extent));
  return { buffer, requeued, full, write };
}

const extents = (buffer: WriteBuffer): number[][] =>
  [...buffer.dirtyExtents()].map(({ start, end }) => [start, end]).sort((a, b) => (a[0] ?? 0) - (b[0] ?? 0));

const bytes = (buffer: WriteBuffer, start: number, end: number): Buffer =>
  Buffer.concat(buffer.snapshot(start, end).flatMap(({ parts }) => parts));

describe('WriteBuffer', () => {
  it('joins what touches within a slot, and cuts at its borders', () => {
    const { buffer, full, write } = setUp();
    write(100, pattern(100, 1));
    write(300, pattern(100, 2));
    assert.deepEqual(extents(buffer), [
      [100, 200],
      [300, 400],
    ]);
    write(200, pattern(100, 3));
    assert.deepEqual(extents(buffer), [[100, 400]]);
    write(400, pattern(1_000, 4));
    assert.deepEqual(extents(buffer), [
      [100, 1_000],
      [1_000, 1_400],
    ]);
    assert.deepEqual(
      full.map(({ start }) => start),
      [100],
    );
    assert.equal(buffer.bytes, 1_300);
  });

  it('shows nothing of what was given up, also while it is on its way', () => {
    const { buffer, write } = setUp();
    write(0, pattern(100, 1));
    write(1_500, pattern(100, 2));
    const [sent] = [...buffer.dirtyExtents()] as [Extent];
    assert.ok(buffer.beginSend(sent));
    buffer.abandon();
    assert.deepEqual([buffer.snapshot(0, 2_000), buffer.maxEnd()], [[], 0]);
    write(50, pattern(10, 3));
    assert.deepEqual(bytes(buffer, 0, 100), pattern(10, 3));
    assert.equal(
      buffer.beginSend([...buffer.dirtyExtents()][0] as Extent),
      false,
      'behind what is on its way',
    );
    buffer.endSend(sent);
    assert.ok(buffer.beginSend([...buffer.dirtyExtents()][0] as Extent));
  });

  it('cuts a hole into an extent that a write lies within', () => {
    const { buffer, write } = setUp();
    write(0, pattern(500, 1));
    write(200, pattern(100, 2));
    assert.equal(buffer.bytes, 500);
    const expected = Buffer.from(pattern(500, 1));
    pattern(100, 2).copy(expected, 200);
    assert.deepEqual(bytes(buffer, 0, 500), expected);
  });

  it('never changes bytes that a snapshot or a frame holds', () => {
    const { buffer, write } = setUp();
    write(0, pattern(100, 1));
    const [piece] = buffer.snapshot(0, 100);
    write(50, pattern(10, 2)); // cuts
    write(60, pattern(100, 3)); // overwrites and extends
    write(160, pattern(100, 4)); // appends
    buffer.truncate(30);
    write(30, pattern(100, 5)); // appends where bytes were cut off
    assert.deepEqual(Buffer.concat(piece?.parts ?? []), pattern(100, 1));
    const expected = Buffer.concat([pattern(100, 1).subarray(0, 30), pattern(100, 5)]);
    assert.deepEqual(bytes(buffer, 0, 1_000), expected);
  });

  it('asks to queue the rest of a queued extent that was cut in two', () => {
    const { buffer, requeued, write } = setUp();
    write(0, pattern(500, 1));
    const [extent] = [...buffer.dirtyExtents()];
    if (extent) extent.state = 'queued';
    write(200, pattern(10, 2));
    // The pieces are joined again, into the first one: nothing is left unqueued.
    const left = [...buffer.dirtyExtents()];
    assert.deepEqual(
      left.map(({ start, end }) => [start, end]),
      [[0, 500]],
    );
    assert.equal(left[0]?.state, 'queued');
    assert.ok(requeued.length >= 1);
  });

  it('asks to queue an extent that takes in a queued one', () => {
    const { buffer, requeued, write } = setUp();
    write(100, pattern(100, 1));
    const [queued] = [...buffer.dirtyExtents()];
    if (queued) queued.state = 'queued';
    write(50, pattern(50, 2));
    assert.equal(queued?.state, 'gone');
    assert.deepEqual(
      requeued.map(({ start, end }) => [start, end]),
      [[50, 200]],
    );
  });

  it('does not send an extent over bytes that are on their way, and hands it back when they have landed', () => {
    const { buffer, write } = setUp();
    write(0, pattern(100, 1));
    const [first] = [...buffer.dirtyExtents()];
    assert.ok(first && buffer.beginSend(first));
    write(50, pattern(100, 2));
    const [second] = [...buffer.dirtyExtents()];
    assert.ok(second && !buffer.beginSend(second));
    second.wanted = true;
    assert.deepEqual(
      bytes(buffer, 0, 200),
      Buffer.concat([pattern(100, 1).subarray(0, 50), pattern(100, 2)]),
    );
    assert.deepEqual(buffer.endSend(first), [second]);
    assert.ok(buffer.beginSend(second));
    assert.deepEqual(buffer.endSend(second), []);
    assert.deepEqual([buffer.bytes, buffer.slots], [0, 0]);
  });

  it('has drained a generation when all writes before it have landed or are cut off', async () => {
    const { buffer, write } = setUp();
    assert.equal(buffer.drained(buffer.closeGeneration()), undefined);
    write(0, pattern(10, 1));
    write(2_000, pattern(10, 2));
    const generation = buffer.closeGeneration();
    write(3_000, pattern(10, 3));
    let drained = false;
    const done = buffer.drained(generation)?.then(() => {
      drained = true;
    });
    const first = [...buffer.dirtyExtents()].find(({ start }) => start === 0);
    assert.ok(first && buffer.beginSend(first));
    buffer.endSend(first);
    await Promise.resolve();
    assert.equal(drained, false);
    buffer.truncate(2_000);
    await done;
    assert.equal(drained, true);
  });

  it('copies a small payload out of the large buffer that it came in, and keeps a large one as it is', () => {
    const { buffer, write } = setUp();
    const request = Buffer.alloc(1_000_000);
    write(0, request.subarray(0, 500));
    for (const { parts } of buffer.snapshot(0, 500)) {
      for (const part of parts) assert.ok(part.buffer.byteLength < 10_000);
    }
    const large = new WriteBuffer(1_048_576, () => {});
    large.write(0, request, () => {});
    assert.equal(large.snapshot(0, 10)[0]?.parts[0]?.buffer, request.buffer);
  });
});
