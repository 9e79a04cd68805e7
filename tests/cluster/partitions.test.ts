import assert from 'node:assert/strict';
import { join } from 'node:path';
import { delay, systemClock } from '../../common/clock.js';
import { sh } from '../lab/command.js';
import { Lab } from '../lab/lab.js';
import { networkUnavailable } from '../lab/network.js';
import { Watchers } from '../stress/watchers.js';

/** How long a cut lasts: longer than every lease of a server, shorter than a session. */
const CUT_MS = 2_000;

describe('a network that is cut', function () {
  this.timeout(300_000);
  let lab: Lab;
  const watchers = new Watchers();
  before(async function () {
    if (networkUnavailable()) this.skip();
    lab = new Lab('partitions', { clients: 2 });
    await lab.open();
    const [writer, reader] = lab.clients.map((client) => join(lab.mountPoint(client), 'watched')) as [
      string,
      string,
    ];
    await sh(`mkdir ${writer}`);
    watchers.start({ writer, reader });
  });
  after(async () => {
    watchers.kill();
    await lab?.close();
  });

  /** Two clients use the same files while the cut is there and after it: no error, nothing stale, nobody wins twice. */
  async function surviveCut(cut: () => Promise<void>, everythingGoesOn = true): Promise<void> {
    await watchers.progress();
    try {
      await cut();
      if (everythingGoesOn) await watchers.progress();
      await delay(systemClock, CUT_MS);
    } finally {
      lab.network.heal();
    }
    await watchers.progress();
    assert.deepEqual(watchers.judge().offences, []);
    await lab.waitHealthy();
  }

  const isolate =
    (host: string, ...groups: ('metaservers' | 'servers' | 'clients')[]) =>
    async (): Promise<void> =>
      lab.network.part(
        [host],
        groups.flatMap((group) => lab[group]),
      );

  it('between the leader and its followers: the others elect one, the old one answers nobody', () =>
    surviveCut(async () => lab.network.part([await lab.leader()], lab.metaservers)));

  it('between a chunkserver and the metaservers: it serves nobody although clients reach it', () =>
    surviveCut(isolate('chunkserver-1', 'metaservers')));

  it('around a chunkserver: the others go on', () =>
    surviveCut(isolate('chunkserver-2', 'servers', 'clients')));

  const otherChunkservers = (host: string): string[] =>
    lab.servers.filter((name) => name.startsWith('chunkserver-') && name !== host);

  it('between a chunkserver and the other chunkservers: they go on without it', () =>
    surviveCut(async () => lab.network.part(['chunkserver-1'], otherChunkservers('chunkserver-1'))));

  it('one way, a chunkserver is not heard by the other chunkservers', () =>
    surviveCut(async () => {
      lab.network.cut(['chunkserver-2'], otherChunkservers('chunkserver-2'));
    }));

  it('one way, a chunkserver is not heard by the metaservers', () =>
    surviveCut(async () => {
      lab.network.cut(['chunkserver-3'], lab.metaservers);
    }));

  it('one way, the leader does not hear its followers', () =>
    surviveCut(async () => {
      lab.network.cut(lab.metaservers, [await lab.leader()]);
    }));

  it('around a client: its programs wait, without an error', () =>
    surviveCut(isolate('client-2', 'servers'), false));

  it('between the reader and the metaservers: it reads nothing old from chunkservers', () =>
    surviveCut(isolate('client-2', 'metaservers'), false));

  it('loses nothing of all this', async () => {
    const verdict = await watchers.stop(join(lab.mountPoint('client-2'), 'watched'));
    assert.deepEqual(verdict.offences, []);
    assert.ok(verdict.reads > 0 && verdict.writes > 0 && verdict.claims > 0, JSON.stringify(verdict));
  });
});
