import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type DiskReport, reservedElsewhere, shareDisks } from '../../../metaserver/cluster/shared-disks.js';

const server = (id: number, freeBytes: number, device: string, deviceFreeBytes = freeBytes): DiskReport => ({
  ...{ id, freeBytes, device, deviceFreeBytes, reservedBytes: 0 },
});

describe('free space of servers that share a file system', () => {
  it('is divided among them, and left to those that share with nobody', () => {
    const free = shareDisks([server(1, 90, 'a'), server(2, 90, 'a'), server(3, 90, 'a'), server(4, 90, 'b')]);
    assert.deepEqual(
      [...free],
      [
        [1, 30],
        [2, 30],
        [3, 30],
        [4, 90],
      ],
    );
    assert.deepEqual([...shareDisks([server(1, 90, ''), server(2, 90, '')]).values()], [90, 90]);
  });

  it('is not divided where limits leave room for all', () => {
    const free = shareDisks([server(1, 20, 'a', 100), server(2, 30, 'a', 100)]);
    assert.deepEqual([...free.values()], [20, 30]);
  });

  it('leaves each its own dead bytes, which nobody else counts', () => {
    const free = shareDisks([server(1, 150, 'a', 100), server(2, 100, 'a', 100)]);
    assert.deepEqual([...free.values()], [100, 50]);
  });

  it('is without what any of them has promised, each its own', () => {
    // Of 100 bytes 30 are promised, and 20 dead bytes are the second server's.
    const reports = [
      { ...server(1, 90, 'a', 100), reservedBytes: 10 },
      { ...server(2, 100, 'a', 100), reservedBytes: 20 },
      { ...server(3, 90, 'b'), reservedBytes: 5 },
    ];
    assert.deepEqual([...shareDisks(reports).values()], [35, 55, 90]);
    assert.deepEqual(
      [1, 2, 3, 4].map((id) => reservedElsewhere(reports, id)),
      [20, 10, 0, 0],
    );
    assert.equal(reservedElsewhere([server(1, 90, ''), { ...server(2, 90, ''), reservedBytes: 7 }], 1), 0);
  });

  it('never promises more than there is, nor takes from anybody more than is shared', () => {
    const reports = fc.array(
      fc.record({
        freeBytes: fc.integer({ min: 0, max: 1000 }),
        device: fc.constantFrom('', 'a', 'b'),
        deviceFreeBytes: fc.integer({ min: 0, max: 1000 }),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(reports, (list) => {
        const servers = list.map((each, id) => ({ ...each, id, reservedBytes: 0 }));
        const free = shareDisks(servers);
        for (const device of ['a', 'b']) {
          const sharers = servers.filter((each) => each.device === device);
          if (sharers.length === 0) continue;
          const available = Math.min(...sharers.map((each) => each.deviceFreeBytes));
          const own = sharers.reduce((sum, each) => sum + Math.max(0, each.freeBytes - available), 0);
          const total = sharers.reduce((sum, each) => sum + (free.get(each.id) as number), 0);
          assert.ok(total <= available + own + 1e-6);
        }
        for (const { id, freeBytes } of servers) {
          const share = free.get(id) as number;
          assert.ok(share >= 0 && share <= freeBytes);
        }
      }),
    );
  });
});
