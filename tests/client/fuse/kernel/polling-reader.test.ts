import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pollingReader } from '../../../../client/fuse/kernel/polling-reader.js';

describe('a reader polled by the event loop', () => {
  let dir: string;
  let fd: number;
  let reader: NonNullable<ReturnType<typeof pollingReader>>;

  beforeEach(() => {
    dir = fs.mkdtempSync(join(tmpdir(), 'holdfast-poll-'));
    execFileSync('mkfifo', [join(dir, 'fifo')]);
    fd = fs.openSync(join(dir, 'fifo'), 'r+');
    const made = pollingReader(fd);
    assert.ok(made, 'this Node can poll a descriptor');
    reader = made;
  });

  afterEach(() => {
    reader.close();
    fs.rmSync(dir, { recursive: true });
  });

  function read(target: Buffer): Promise<string> {
    return new Promise((resolve, reject) => {
      reader.read(target, (error, bytes) =>
        error ? reject(error) : resolve(target.toString('latin1', 0, bytes)),
      );
    });
  }

  it('gives each message to the buffer that waits for it, old or new, also behind a pause', async () => {
    const [first, second] = [Buffer.alloc(64), Buffer.alloc(64)];
    const one = read(first);
    fs.writeSync(fd, 'one');
    assert.equal(await one, 'one');
    fs.writeSync(fd, 'two'); // nobody reads now
    assert.equal(await read(second), 'two');
    assert.equal(first.toString('latin1', 0, 3), 'two', 'it came through the buffer of the first read');
    fs.writeSync(fd, 'three');
    assert.equal(await read(first), 'three');
  });

  it('goes on in another buffer when the callback reads again at once', async () => {
    const buffers = [Buffer.alloc(8), Buffer.alloc(8), Buffer.alloc(8)];
    const seen: string[] = [];
    const all = new Promise<void>((resolve) => {
      const next = (at: number): void => {
        const target = buffers[at];
        if (!target) {
          resolve();
          return;
        }
        reader.read(target, (_error, bytes) => {
          seen.push(target.toString('latin1', 0, bytes));
          next(at + 1);
          if (at + 1 < buffers.length) fs.writeSync(fd, `m${at + 1}`);
        });
      };
      next(0);
    });
    fs.writeSync(fd, 'm0');
    await all;
    assert.deepEqual(seen, ['m0', 'm1', 'm2']);
    assert.deepEqual(
      buffers.map((buffer) => buffer.toString('latin1', 0, 2)),
      ['m0', 'm1', 'm2'],
    );
  });
});
