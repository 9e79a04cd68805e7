import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { nodeScript, sh } from '../lab/command.js';
import { temporaryDirectory } from '../lab/directories.js';
import { eventually } from '../lab/eventually.js';
import { ImageDisk, imageDiskUnavailable } from '../lab/image-disk.js';
import { TestCluster } from '../lab/test-cluster.js';
import { CHECK_RECORDS, SYNCED_WRITER } from './support/synced-writer.js';

/** How often the power goes. */
const CUTS = 2;
const DISK_MIB = 2048;

describe('a power cut of all servers at once', function () {
  this.timeout(300_000);
  let cluster: TestCluster;
  let disk: ImageDisk;
  let local: string;
  before(async function () {
    if (imageDiskUnavailable()) this.skip();
    local = temporaryDirectory('power-cut-local');
    cluster = new TestCluster('power-cut');
    disk = new ImageDisk(cluster.data);
    disk.create(DISK_MIB);
    await cluster.up();
    await cluster.waitHealthy();
  });
  after(async () => {
    await cluster?.down();
    disk?.destroy();
    await cluster?.destroy();
    if (local) rmSync(local, { recursive: true, force: true });
  });

  it('leaves every byte and every name that was synced', async () => {
    const acknowledged: string[] = [];
    for (let cut = 0; cut < CUTS; cut++) {
      const [stop, count] = [join(local, `stop-${cut}`), join(local, `count-${cut}`)];
      const records = (name: number): string => join(cluster.dir, `records-${name}`);
      await sh(
        `mkdir d${cut}; head -c 9000000 /dev/urandom > d${cut}/synced; sync d${cut}/synced d${cut} .`,
        {
          cwd: cluster.dir,
        },
      );
      const sum = await sh(`sha256sum < d${cut}/synced`, { cwd: cluster.dir });
      const writer = nodeScript(SYNCED_WRITER, [records(cut), stop, count]).catch(() => 'cut off');
      const unsynced = sh(`while true; do head -c 3000000 /dev/urandom > unsynced; done`, {
        cwd: cluster.dir,
      }).catch(() => 'cut off');
      await eventually('records are written', async () => {
        return Number(await sh(`cat ${count} 2>/dev/null || echo 0`)) > 50;
      });
      await cluster.crashAll();
      disk.powerCut();
      await sh(`touch ${stop}`);
      assert.deepEqual([await writer, await unsynced], ['cut off', 'cut off']);
      acknowledged.push(await sh(`cat ${count}`));
      await cluster.up();
      await cluster.waitHealthy();
      for (const [name, number] of acknowledged.entries())
        await nodeScript(CHECK_RECORDS, [records(name), number]);
      assert.equal(await sh(`sha256sum < d${cut}/synced`, { cwd: cluster.dir }), sum);
    }
  });
});
