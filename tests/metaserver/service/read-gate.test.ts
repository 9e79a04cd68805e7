import assert from 'node:assert/strict';
import { type Deferred, deferred } from '../../../common/deferred.js';
import { IN_ORDER_WAITING_MAX, ReadGate } from '../../../metaserver/service/read-gate.js';
import { settled } from './fakes.js';

const unexpected = (): never => assert.fail('no barrier fails here');

describe('read gate', () => {
  let canRead: boolean;
  let barrier: Deferred<void>;
  let done: string[];
  let gate: ReadGate;

  beforeEach(() => {
    canRead = false;
    barrier = deferred<void>();
    done = [];
    gate = new ReadGate({ canReadNow: () => canRead, readBarrier: () => barrier.promise });
    gate.pass(() => done.push('first'), unexpected);
    canRead = true;
  });

  it('lets a read pass others that wait, since it is linearizable on its own', async () => {
    gate.pass(() => done.push('second'), unexpected);
    assert.deepEqual(done, ['second']);
    barrier.resolve();
    await settled();
    assert.deepEqual(done, ['second', 'first']);
  });

  it('keeps what must not overtake behind what waits', async () => {
    gate.passInOrder(() => done.push('second'), unexpected);
    assert.deepEqual(done, []);
    barrier.resolve();
    await settled();
    await settled();
    assert.deepEqual(done, ['first', 'second']);
    gate.passInOrder(() => done.push('third'), unexpected);
    assert.deepEqual(done, ['first', 'second', 'third']);
  });

  it('takes no more of that than has a bound, and reads all the same', async () => {
    for (let n = 0; n < IN_ORDER_WAITING_MAX; n++) gate.passInOrder(() => {}, unexpected);
    const refused: string[] = [];
    gate.passInOrder(unexpected, ({ errorName }) => refused.push(errorName));
    assert.deepEqual(refused, ['OVERLOADED']);
    canRead = false;
    gate.pass(() => done.push('read'), unexpected);
    barrier.resolve();
    await settled();
    await settled();
    assert.deepEqual(done, ['first', 'read']);
  });
});
