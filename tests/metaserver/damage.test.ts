import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { nodeDisk } from '../../common/disk.js';
import { LogCorruptError, LogFormatError } from '../../common/segment-log.js';
import {
  isDamage,
  keptDamage,
  keptIsUnused,
  noteDamage,
  notedDamage,
  setAside,
} from '../../metaserver/damage.js';
import { ReplicaDamagedError, ReplicaFormatError, writeFormat } from '../../metaserver/replica/format.js';
import { HoldfastError } from '../../proto/errors.js';

describe('damaged data', () => {
  let dir: string;

  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'holdfast-damage-'));
    writeFileSync(path.join(dir, 'lock'), 'pid');
    put('first');
  });
  afterEach(() => rm(dir, { recursive: true }));

  function put(content: string): void {
    mkdirSync(path.join(dir, 'log'), { recursive: true });
    writeFileSync(path.join(dir, 'log', 'segment'), content);
    writeFileSync(path.join(dir, 'format.json'), content);
  }

  const note = (reason: string) => noteDamage(dir, { reason, time: '2026-01-01T00:00:00.000Z' });
  const kept = (): string => readFileSync(path.join(dir, 'damaged', 'log', 'segment'), 'utf8');

  it('is what no longer says what was written, and not what belongs to somebody else', () => {
    const damage = [
      new LogCorruptError('f', 1, 'x'),
      new ReplicaDamagedError('x'),
      new HoldfastError('CORRUPT', 'x'),
    ];
    const others = [
      new LogFormatError('x'),
      new ReplicaFormatError('x'),
      new HoldfastError('VERSION', 'x'),
      new HoldfastError('EIO', 'x'),
      new Error('x'),
      undefined,
    ];
    assert.deepEqual(damage.map(isDamage), [true, true, true]);
    assert.deepEqual(
      others.map(isDamage),
      others.map(() => false),
    );
  });

  it('is set aside with its reason, and leaves an empty directory', async () => {
    note('a bad record');
    assert.equal(notedDamage(dir)?.reason, 'a bad record');
    await setAside(nodeDisk, dir);
    assert.deepEqual(readdirSync(dir).sort(), ['damaged', 'lock']);
    assert.equal(kept(), 'first');
    assert.deepEqual([notedDamage(dir), keptDamage(dir)?.reason], [undefined, 'a bad record']);
  });

  it('takes the place of what was kept before: one is kept', async () => {
    note('one');
    await setAside(nodeDisk, dir);
    put('second');
    note('two');
    await setAside(nodeDisk, dir);
    assert.deepEqual([kept(), keptDamage(dir)?.reason], ['second', 'two']);
    assert.equal(existsSync(path.join(dir, 'damaged', 'damaged')), false);
  });

  it('is set aside in the end when a crash cuts that off anywhere', async () => {
    note('zero');
    await setAside(nodeDisk, dir);
    for (let steps = 0; steps < 8; steps++) {
      put(`round ${steps}`);
      note(`round ${steps}`);
      let left = steps;
      const failing = {
        ...nodeDisk,
        syncDir: async (of: string) => {
          if (left-- <= 0) throw new Error('crash');
          await nodeDisk.syncDir(of);
        },
      };
      await setAside(failing, dir).catch(() => undefined);
      if (notedDamage(dir)) await setAside(nodeDisk, dir);
      assert.deepEqual([kept(), keptDamage(dir)?.reason], [`round ${steps}`, `round ${steps}`]);
      assert.deepEqual(readdirSync(dir).sort(), ['damaged', 'lock']);
    }
  });

  it('was used or not: only a disk that was to found a cluster, and whose log had not begun, was not', async () => {
    const fresh = {
      ...{ clusterId: 'c', serverId: 1, diskUuid: 'fa6c6058-66b4-4182-9bc2-6cfcf98c2617' },
      ...{ conf: null, mayFound: true, begun: false },
    };
    const seen: boolean[] = [];
    for (const change of [{}, { begun: true }, { mayFound: false }]) {
      await rm(path.join(dir, 'format.json'), { force: true });
      await writeFormat(nodeDisk, dir, { ...fresh, ...change });
      note('half a store');
      await setAside(nodeDisk, dir);
      seen.push(await keptIsUnused(nodeDisk, dir));
    }
    put('no format');
    note('another');
    await setAside(nodeDisk, dir);
    assert.deepEqual([...seen, await keptIsUnused(nodeDisk, dir)], [true, false, false, false]);
  });
});
