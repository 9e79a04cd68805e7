import assert from 'node:assert/strict';
import { holdfast } from '../lab/command.js';
import { mountsBelow } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { LineChild } from '../lab/line-child.js';
import { TestCluster } from '../lab/test-cluster.js';

const MORE_THAN_BUFFERS_BYTES = 200 * 1024 * 1024;
/** Far above what an unmount may take on a loaded machine, far below for ever. */
const UMOUNT_TIMEOUT_MS = 120_000;

/** Holds a file open over the end of the servers, writes when told, and ends. */
const WRITER = `
  const fs = require('node:fs');
  const fd = fs.openSync(process.argv[1], 'w+');
  fs.writeSync(fd, 'x');
  fs.fsyncSync(fd);
  console.log('ready');
  process.stdin.once('data', () => {
    const piece = Buffer.alloc(1 << 20, 1);
    for (let at = 0; at < Number(process.argv[2]); at += piece.length) fs.writeSync(fd, piece, 0, piece.length, at);
    console.log('written');
  });`;

/** A program with a file of its own on a mount. */
class Writer {
  readonly #child: LineChild;
  readonly #said: string[] = [];

  constructor(dir: string, bytes: number) {
    const args = ['-e', WRITER, `${dir}/dirty-${bytes}`, String(bytes)];
    this.#child = new LineChild(process.execPath, args, (line) => this.#said.push(line), 'ignore');
  }

  async says(what: string): Promise<void> {
    await eventually(`the writer says '${what}'`, () => this.#said.includes(what));
  }

  write(): void {
    this.#child.say('go');
  }

  end(): void {
    this.#child.kill();
  }
}

describe('umount of a mount whose servers are all gone', function () {
  this.timeout(400_000);
  const cluster = new TestCluster('umount');
  const writers: Writer[] = [];
  let second = '';
  let third = '';

  before(async () => {
    await cluster.up();
    second = await cluster.mount('second');
    third = await cluster.mount('third');
    writers.push(new Writer(second, 1 << 20), new Writer(third, MORE_THAN_BUFFERS_BYTES));
    for (const writer of writers) await writer.says('ready');
    await cluster.crashAll();
    for (const writer of writers) writer.write();
  });
  after(async () => {
    for (const writer of writers) writer.end();
    await cluster.destroy();
  });

  it('ends, says how much was given up, and fails', async () => {
    await writers[0]?.says('written');
    writers[0]?.end();
    const result = await holdfast(['umount', second], { timeoutMs: UMOUNT_TIMEOUT_MS });
    assert.equal(result.code, 1, result.stderr);
    assert.match(
      result.stderr,
      /^holdfast: .*second is unmounted, but [1-9].* MiB of data .* given up; see .*\.log\n$/,
    );
    assert.deepEqual(mountsBelow(second), []);
  });

  it('by force ends while a program still writes', async () => {
    const result = await holdfast(['umount', '--force', third], { timeoutMs: UMOUNT_TIMEOUT_MS });
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, /^holdfast: .*third is unmounted, but .* given up; see .*\.log\n$/);
    assert.deepEqual(mountsBelow(third), []);
  });
});
