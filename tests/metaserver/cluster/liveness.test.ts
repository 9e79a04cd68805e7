import assert from 'node:assert/strict';
import {
  DOWN_RETRY_MS,
  FIRST_HEARTBEAT_MS,
  LATE_TICK_MS,
  LEADER_GRACE_MS,
  LEASE_MARGIN_MS,
  LIVENESS_TICK_MS,
  Liveness,
  type LivenessEvent,
  PAUSE_GRACE_MS,
} from '../../../metaserver/cluster/liveness.js';
import { LEASE_MS } from '../../../proto/types.js';

/** Steps a core through a scenario and records what it asks for, as `time kind server`. */
class Scenario {
  readonly core = new Liveness();
  readonly asked: string[] = [];
  now = 0;

  at(now: number, event: LivenessEvent): this {
    this.now = now;
    for (const effect of this.core.step(event, now))
      this.asked.push(`${now} ${effect.kind} ${effect.server}`);
    return this;
  }

  /** Ticks regularly until `end`, with a heartbeat of each of `beating` at every tick. */
  run(end: number, beating: number[] = []): this {
    for (let now = this.now + LIVENESS_TICK_MS; now <= end; now += LIVENESS_TICK_MS) {
      for (const server of beating) this.at(now, { kind: 'heartbeat', server });
      this.at(now, { kind: 'tick' });
    }
    return this;
  }
}

function led(...alive: number[]): Scenario {
  return new Scenario().at(0, { kind: 'led', alive });
}

function connectAll(scenario: Scenario, servers: number[]): Scenario {
  for (const server of servers) scenario.at(0, { kind: 'connected', server });
  return scenario;
}

const FIRST_TICK_BEHIND_LEASE = Math.ceil((LEASE_MS + LEASE_MARGIN_MS) / LIVENESS_TICK_MS) * LIVENESS_TICK_MS;

describe('liveness of chunkservers', () => {
  it('declares nobody down while all send heartbeats', () => {
    const scenario = connectAll(led(1, 2, 3), [1, 2, 3]).run(20_000, [1, 2, 3]);
    assert.deepEqual(scenario.asked, []);
  });

  it('declares a server down at once when its stream ends', () => {
    const scenario = connectAll(led(1, 2), [1, 2])
      .run(1000, [1, 2])
      .at(1001, { kind: 'disconnected', server: 2 });
    assert.deepEqual(scenario.asked, ['1001 down 2']);
  });

  it('waits the whole lease out when a server is silent, then ends its stream and declares it down, within 3 s', () => {
    const scenario = connectAll(led(1, 2), [1, 2]).at(0, { kind: 'heartbeat', server: 2 }).run(5000, [1]);
    const silent = scenario.asked.filter((line) => line.endsWith(' 2'));
    assert.deepEqual(silent[0], `${FIRST_TICK_BEHIND_LEASE} disconnect 2`);
    assert.deepEqual(silent[1], `${FIRST_TICK_BEHIND_LEASE} down 2`);
    assert.ok(FIRST_TICK_BEHIND_LEASE >= LEASE_MS && FIRST_TICK_BEHIND_LEASE < 2000);
  });

  it('waits longer for the first heartbeat of a registered server, which has no lease before it', () => {
    const scenario = connectAll(led(1), [1]).run(5000);
    assert.deepEqual(scenario.asked.slice(0, 2), [
      `${FIRST_HEARTBEAT_MS} disconnect 1`,
      `${FIRST_HEARTBEAT_MS} down 1`,
    ]);
  });

  it('asks again for a ServerDown that did not reach the map, and stops when it did', () => {
    const scenario = led(1).run(LEADER_GRACE_MS + 2 * DOWN_RETRY_MS);
    assert.deepEqual(
      scenario.asked,
      [0, 1, 2].map((n) => `${LEADER_GRACE_MS + n * DOWN_RETRY_MS} down 1`),
    );
    scenario.at(scenario.now, { kind: 'map', alive: [] }).run(scenario.now + 5 * DOWN_RETRY_MS);
    assert.equal(scenario.asked.length, 3);
  });

  it('gives the servers of the map a grace after a change of leader, and keeps those that connect in it', () => {
    const scenario = led(1, 2, 3).run(LEADER_GRACE_MS - LIVENESS_TICK_MS);
    assert.deepEqual(scenario.asked, []);
    scenario
      .at(scenario.now, { kind: 'connected', server: 1 })
      .at(scenario.now, { kind: 'connected', server: 3 });
    scenario.run(LEADER_GRACE_MS + DOWN_RETRY_MS - LIVENESS_TICK_MS, [1, 3]);
    assert.deepEqual(scenario.asked, [`${LEADER_GRACE_MS} down 2`]);
  });

  it('forgets what it knew under an earlier leadership', () => {
    const scenario = connectAll(led(1), [1]).run(1000, [1]);
    scenario.at(1000, { kind: 'led', alive: [1] }).run(1000 + LEADER_GRACE_MS - LIVENESS_TICK_MS, [1]);
    assert.deepEqual(scenario.asked, []);
    assert.equal(scenario.core.connected(1), false);
    scenario.run(1000 + LEADER_GRACE_MS);
    assert.deepEqual(scenario.asked, [`${1000 + LEADER_GRACE_MS} down 1`]);
  });

  it('ignores heartbeats of a stream that is not registered', () => {
    const scenario = led(1).run(LEADER_GRACE_MS, [1]);
    assert.deepEqual(scenario.asked, [`${LEADER_GRACE_MS} down 1`]);
  });

  it('asks for nothing when a server ends its stream that the map calls down already', () => {
    const scenario = led().at(5, { kind: 'connected', server: 4 }).at(6, { kind: 'disconnected', server: 4 });
    assert.deepEqual(scenario.asked, []);
  });

  it('declares a server down whose stream ended before the map showed its return', () => {
    const scenario = led()
      .at(5, { kind: 'connected', server: 4 })
      .at(6, { kind: 'disconnected', server: 4 })
      .at(9, { kind: 'map', alive: [4] });
    assert.deepEqual(scenario.asked, ['9 down 4']);
  });

  it('declares a returned server down again when it fails again', () => {
    const scenario = connectAll(led(1), [1])
      .at(10, { kind: 'disconnected', server: 1 })
      .at(11, { kind: 'map', alive: [] })
      .at(12, { kind: 'connected', server: 1 })
      .at(13, { kind: 'map', alive: [1] })
      .at(14, { kind: 'disconnected', server: 1 });
    assert.deepEqual(scenario.asked, ['10 down 1', '14 down 1']);
  });

  it('concludes nothing from a silence during which this process itself was paused', () => {
    const scenario = connectAll(led(1, 2), [1, 2]).run(1000, [1, 2]);
    const woken = 1000 + LATE_TICK_MS + 10_000;
    scenario.at(woken, { kind: 'tick' });
    assert.deepEqual(scenario.asked, []);
    scenario.run(woken + PAUSE_GRACE_MS - LIVENESS_TICK_MS, [1]);
    assert.deepEqual(scenario.asked, []);
    scenario.run(woken + PAUSE_GRACE_MS, [1]);
    assert.deepEqual(scenario.asked, [
      `${woken + PAUSE_GRACE_MS} disconnect 2`,
      `${woken + PAUSE_GRACE_MS} down 2`,
    ]);
  });

  it('calls a lease over only when stream and time allow no other conclusion', () => {
    const scenario = led(1);
    assert.equal(scenario.core.leaseOver(1, LEADER_GRACE_MS - 1), false);
    assert.equal(scenario.core.leaseOver(1, LEADER_GRACE_MS), true);
    assert.equal(scenario.core.leaseOver(9, 0), true);
    scenario.at(10, { kind: 'connected', server: 1 });
    assert.equal(scenario.core.leaseOver(1, LEADER_GRACE_MS), false);
    scenario.at(11, { kind: 'disconnected', server: 1 });
    assert.equal(scenario.core.leaseOver(1, 11), true);
  });
});
