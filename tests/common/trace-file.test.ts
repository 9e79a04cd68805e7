import assert from 'node:assert/strict';
import { readWholeFile } from '../../common/disk.js';
import { silentLogger } from '../../common/logger.js';
import { MemoryDisk } from '../../common/memory-disk.js';
import type { Span } from '../../common/trace.js';
import { TraceFile } from '../../common/trace-file.js';
import { ManualClock } from '../client/support/manual-clock.js';

const span = (trace: number): Span => ({ trace, stage: 'wire', name: 'call', at: 0, us: 1 });

function open(disk: MemoryDisk, maxBytes?: number): Promise<TraceFile> {
  return TraceFile.open('/t', 'mount', { disk, clock: new ManualClock(), log: silentLogger }, maxBytes);
}

async function traces(disk: MemoryDisk, file: string): Promise<(number | undefined)[]> {
  const lines = (await readWholeFile(disk, file)).toString().trim().split('\n');
  return lines.filter((line) => line !== '').map((line) => (JSON.parse(line) as Span).trace);
}

describe('a trace file', () => {
  it('has each span as a line, in order, once it is closed', async () => {
    const disk = new MemoryDisk();
    const file = await open(disk);
    file.add(span(1));
    await file.flush();
    file.add(span(2));
    await file.close();
    assert.deepEqual(await traces(disk, '/t/mount.jsonl'), [1, 2]);
  });

  it('keeps the one of the former process, and is bounded', async () => {
    const disk = new MemoryDisk();
    const former = await open(disk);
    former.add(span(1));
    await former.close();
    const file = await open(disk, 1);
    assert.deepEqual(await traces(disk, '/t/mount.old.jsonl'), [1]);
    for (const trace of [2, 3, 4]) {
      file.add(span(trace));
      await file.flush();
    }
    await file.close();
    assert.deepEqual(await traces(disk, '/t/mount.old.jsonl'), [3]);
    assert.deepEqual(await traces(disk, '/t/mount.jsonl'), [4]);
  });

  it('drops and counts what the disk does not keep up with', async () => {
    const disk = new MemoryDisk();
    const file = await open(disk);
    const large = { ...span(1), name: 'x'.repeat(4 * 1024 * 1024) };
    for (let i = 0; i < 5; i++) file.add(large);
    await file.close();
    const text = (await readWholeFile(disk, '/t/mount.jsonl')).toString();
    assert.equal(text.trim().split('\n').length, 3);
    assert.match(text, /\n\{"dropped":3\}\n$/);
  });

  it('stops at a disk that fails, without an error for the process', async () => {
    const disk = new MemoryDisk();
    const file = await open(disk);
    disk.fail('write', 'ENOSPC');
    file.add(span(1));
    await file.flush();
    file.add(span(2));
    await file.close();
    assert.deepEqual(await traces(disk, '/t/mount.jsonl'), []);
  });
});
