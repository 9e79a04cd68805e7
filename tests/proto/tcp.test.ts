import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { connectTcp } from '../../proto/tcp.js';
import { eventually } from '../lab/eventually.js';

/** Listens with the shortest queue, and is stopped before it accepts anybody: further connections hang. */
const DEAF_SERVER = `
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    console.log(server.address().port);
    setImmediate(() => process.kill(process.pid, 'SIGSTOP'));
  });`;
/** More than its queue takes. */
const CONNECTIONS = 8;

const ended = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    socket.once('error', (error) => resolve(error.message));
    socket.once('connect', () => resolve('connected'));
  });

describe('a TCP connection', function () {
  this.timeout(30_000);
  let deaf: ChildProcess | undefined;
  after(() => {
    deaf?.kill('SIGKILL');
  });

  it('is given up when nobody answers, long before the kernel would', async () => {
    const child = spawn(process.execPath, ['-e', DEAF_SERVER], { stdio: ['ignore', 'pipe', 'inherit'] });
    deaf = child;
    const port = await new Promise<number>((resolve) => {
      createInterface({ input: child.stdout }).once('line', (line) => resolve(Number(line)));
    });
    // Before that it might accept all of them.
    await eventually('the server to be stopped', async () =>
      / T /.test(await readFile(`/proc/${child.pid}/stat`, 'utf8')),
    );
    const sockets = Array.from({ length: CONNECTIONS }, () => connectTcp('127.0.0.1', port));
    const outcomes = await Promise.all(sockets.map(ended));
    for (const socket of sockets) socket.destroy();
    assert.deepEqual([...new Set(outcomes)].sort(), [`127.0.0.1:${port} does not answer`, 'connected']);
  });

  it('stands as long as it is wanted once it was accepted', async () => {
    const server = createServer((socket) => socket.pipe(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const socket = connectTcp('localhost', address.port);
    assert.equal(await ended(socket), 'connected');
    const echoed = new Promise<string>((resolve) => socket.once('data', (data) => resolve(String(data))));
    socket.write('hello');
    assert.equal(await echoed, 'hello');
    socket.destroy();
    server.close();
  });
});
