import assert from 'node:assert/strict';
import { RATE_WINDOW_MS, RecoveryMeter } from '../../../chunkserver/service/recovery-meter.js';
import type { PgStatus } from '../../../proto/gen/cluster.js';

const group = (pg: number, done: number, left: number, state = 'recovering'): PgStatus => ({
  ...{ pg, epoch: 1, state },
  ...{ recoveryDoneBytes: done, recoveryLeftBytes: left },
});

describe('the progress of a recovery', () => {
  it('adds up the groups, and keeps those that are done until the last one is', () => {
    const meter = new RecoveryMeter();
    assert.deepEqual(meter.sample([group(1, 0, 100), group(2, 10, 40)], 0), {
      ...{ doneBytes: 10, leftBytes: 140, bytesPerSecond: 0 },
    });
    assert.deepEqual(meter.sample([group(1, 60, 40)], 1000), {
      ...{ doneBytes: 110, leftBytes: 40, bytesPerSecond: 100 },
    });
    assert.deepEqual(meter.sample([group(2, 0, 0, 'waiting')], 2000), {
      ...{ doneBytes: 0, leftBytes: 0, bytesPerSecond: 0 },
    });
    assert.equal(meter.sample([group(1, 5, 5)], 3000).doneBytes, 5);
  });

  it('tells the rate of the last seconds, and none while a copy is begun anew', () => {
    const meter = new RecoveryMeter();
    let last = 0;
    for (let at = 0; at <= 60_000; at += 200) {
      const done = at < 30_000 ? at * 10 : 300_000 + (at - 30_000);
      last = meter.sample([group(1, done, 1_000_000)], at).bytesPerSecond;
    }
    assert.equal(last, 1000);
    assert.equal(meter.sample([group(1, 0, 1_000_000)], 60_000 + RATE_WINDOW_MS / 2).bytesPerSecond, 0);
  });
});
