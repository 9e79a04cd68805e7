import assert from 'node:assert/strict';
import { silentLogger } from '../../../common/logger.js';
import { Leadership, PREPARE_RETRY_MS } from '../../../metaserver/service/leadership.js';
import { Proposer } from '../../../metaserver/service/proposer.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FakeClock, FakeReplica, FakeState, INIT, settled } from './fakes.js';

function setUp() {
  const clock = new FakeClock();
  const state = new FakeState();
  const replica = new FakeReplica(state);
  const proposer = new Proposer(replica, clock);
  const leadership = new Leadership({ replica, state, proposer, clock, log: silentLogger, init: INIT });
  const events: string[] = [];
  for (const name of ['a', 'b']) {
    leadership.add({ begin: () => events.push(`begin ${name}`), end: () => events.push(`end ${name}`) });
  }
  leadership.start();
  return { clock, state, replica, leadership, events };
}

describe('leadership of the services', () => {
  it('begins the duties when the state is up to date and the cluster has its settings, ends them in reverse', async () => {
    const { replica, state, leadership, events } = setUp();
    replica.lead(true);
    assert.equal(leadership.ready, false);
    await leadership.whenReady();
    assert.deepEqual(state.applied, ['initCluster']);
    assert.ok(replica.barriers > 0);
    replica.lead(false);
    assert.deepEqual(events, ['begin a', 'begin b', 'end b', 'end a']);
    assert.equal(leadership.ready, false);
  });

  it('does not initialise a cluster twice', async () => {
    const { replica, state, leadership } = setUp();
    for (let i = 0; i < 3; i++) {
      replica.lead(true);
      await leadership.whenReady();
      replica.lead(false);
    }
    assert.deepEqual(state.applied, ['initCluster']);
  });

  it('tries again until it can begin', async () => {
    const { clock, replica, leadership, events } = setUp();
    replica.failures.push(new HoldfastError('OVERLOADED'), new HoldfastError('OVERLOADED'));
    replica.lead(true);
    await settled();
    await clock.advance(PREPARE_RETRY_MS);
    assert.deepEqual([leadership.ready, events], [false, []]);
    await clock.advance(PREPARE_RETRY_MS);
    assert.deepEqual([leadership.ready, events.length], [true, 2]);
  });

  it('begins nothing when the leadership was lost meanwhile, and tells who waits who leads', async () => {
    const { replica, leadership, events } = setUp();
    replica.leaderAddress = 'other:7';
    replica.lead(true);
    const waiting = assert.rejects(leadership.whenReady(), (error) => {
      assert.ok(error instanceof HoldfastError);
      assert.deepEqual([error.errorName, error.leaderHint], ['NOT_LEADER', 'other:7']);
      return true;
    });
    replica.lead(false);
    await waiting;
    await settled();
    assert.deepEqual([events, leadership.ready], [[], false]);
  });

  it('starts over when it is elected again without having noticed the loss', async () => {
    const { replica, leadership, events } = setUp();
    replica.lead(true);
    await leadership.whenReady();
    replica.lead(true);
    await leadership.whenReady();
    assert.deepEqual(events, ['begin a', 'begin b', 'end b', 'end a', 'begin a', 'begin b']);
  });
});
