import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { takePorts } from './ports.js';

describe('ports of the tests', () => {
  it('are never given twice while others are left', () => {
    const taken = Array.from({ length: 40 }, () => takePorts(10)).flatMap((first) =>
      Array.from({ length: 10 }, (_, i) => first + i),
    );
    assert.equal(new Set(taken).size, taken.length);
  });

  it('are not those of another program', async () => {
    const blocked = takePorts(1) + 2;
    const server = net.createServer().listen(blocked, '127.0.0.1');
    await once(server, 'listening');
    try {
      const first = takePorts(4);
      assert.ok(first > blocked || first + 4 <= blocked, `${first} to ${first + 3} hold ${blocked}`);
    } finally {
      server.close();
    }
  });
});
