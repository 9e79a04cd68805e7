import assert from 'node:assert/strict';
import { READS_MAX, Reads } from '../../../metaserver/replica/reads.js';
import { HoldfastError } from '../../../proto/errors.js';

const notLeader = () => new HoldfastError('NOT_LEADER');

describe('Reads', () => {
  let reads: Reads;
  let contexts: number[];
  const ask = (context: number) => void contexts.push(context);

  beforeEach(() => {
    reads = new Reads();
    contexts = [];
  });

  it('asks once for all that came in one turn, and again for those that come later', () => {
    void reads.add();
    void reads.add();
    reads.ask(ask);
    void reads.add();
    reads.ask(ask);
    reads.ask(ask);
    assert.deepEqual(contexts, [1, 2]);
  });

  it('answers when the confirmed index is applied, not before', async () => {
    const order: string[] = [];
    const read = reads.add().then(() => order.push('answered'));
    reads.ask(ask);
    reads.confirmed([{ context: 1, index: 10 }], notLeader);
    reads.applied(9);
    await new Promise<void>((resolve) => setImmediate(resolve));
    order.push('applied');
    reads.applied(10);
    await read;
    assert.deepEqual(order, ['applied', 'answered']);
  });

  it('rejects those whose leadership was lost, and only those', async () => {
    const first = reads.add();
    reads.ask(ask);
    const second = reads.add();
    reads.ask(ask);
    reads.confirmed([{ context: 1, index: 0, failed: true }], notLeader);
    reads.confirmed([{ context: 2, index: 3 }], notLeader);
    reads.applied(3);
    await assert.rejects(first, { errorName: 'NOT_LEADER' });
    await second;
  });

  it('is bounded, and takes reads again after all were rejected', async () => {
    const all = Array.from({ length: READS_MAX }, () => reads.add());
    await assert.rejects(reads.add(), { errorName: 'OVERLOADED' });
    reads.ask(ask);
    reads.rejectAll(new HoldfastError('UNAVAILABLE'));
    const outcomes = await Promise.allSettled(all);
    assert.ok(outcomes.every(({ status }) => status === 'rejected'));
    const next = reads.add();
    reads.ask(ask);
    reads.confirmed([{ context: 2, index: 0 }], notLeader);
    reads.applied(0);
    await next;
  });
});
