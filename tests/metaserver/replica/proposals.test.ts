import assert from 'node:assert/strict';
import { PROPOSALS_MAX, Proposals } from '../../../metaserver/replica/proposals.js';
import { HoldfastError } from '../../../proto/errors.js';

const command = (text: string) => Buffer.from(text);
const unavailable = new HoldfastError('UNAVAILABLE');

/** How promises stand: results, error names, or pending. */
async function outcomes(promises: Promise<string>[]): Promise<string[]> {
  const pending = new Promise<string>((resolve) => setImmediate(() => resolve('pending')));
  return Promise.all(
    promises.map((promise) =>
      Promise.race([promise.catch((error: unknown) => (error as HoldfastError).errorName), pending]),
    ),
  );
}

describe('Proposals', () => {
  let proposals: Proposals<string>;

  beforeEach(() => {
    proposals = new Proposals<string>();
  });

  it('proposes all that waits as one batch and answers each by its index', async () => {
    const promises = ['a', 'b', 'c'].map((text) => proposals.add(command(text)));
    const batches: string[][] = [];
    proposals.place((batch) => {
      batches.push(batch.map(String));
      return { index: 7, term: 2 };
    });
    assert.deepEqual(batches, [['a', 'b', 'c']]);
    proposals.applied(6, 2, 'other');
    proposals.applied(7, 2, 'A');
    proposals.applied(8, 2, 'B');
    assert.deepEqual(await outcomes(promises), ['A', 'B', 'pending']);
    assert.equal(proposals.proposed, 1);
  });

  it('splits what is too much for one batch, in order', () => {
    for (let i = 0; i < 5; i++) void proposals.add(Buffer.alloc(400_000, i));
    const batches: number[][] = [];
    let index = 1;
    proposals.place((batch) => {
      batches.push(batch.map((data) => data[0] as number));
      index += batch.length;
      return { index: index - batch.length, term: 1 };
    });
    assert.deepEqual(batches, [[0, 1], [2, 3], [4]]);
  });

  it('rejects a command whose place another leader took, as one that will never be applied', async () => {
    const promises = [proposals.add(command('a')), proposals.add(command('b'))];
    proposals.place(() => ({ index: 5, term: 2 }));
    proposals.applied(5, 3, 'foreign');
    assert.deepEqual(await outcomes(promises), ['NOT_LEADER', 'pending']);
  });

  it('rejects what lies beyond the commit index when the leadership is lost, and still answers the rest', async () => {
    const promises = ['a', 'b', 'c'].map((text) => proposals.add(command(text)));
    proposals.place(() => ({ index: 1, term: 1 }));
    proposals.rejectAfter(2, unavailable);
    proposals.applied(1, 1, 'A');
    proposals.applied(2, 1, 'B');
    assert.deepEqual(await outcomes(promises), ['A', 'B', 'UNAVAILABLE']);
  });

  it('rejects the rest when the core refuses a batch', async () => {
    const promises = [proposals.add(command('a')), proposals.add(command('b'))];
    proposals.place(() => new HoldfastError('OVERLOADED'));
    assert.deepEqual(await outcomes(promises), ['OVERLOADED', 'OVERLOADED']);
    assert.equal(proposals.waiting, 0);
  });

  it('is bounded', async () => {
    const all = Array.from({ length: PROPOSALS_MAX }, () => proposals.add(command('x')));
    proposals.place((batch) => ({ index: 1, term: batch.length }));
    await assert.rejects(proposals.add(command('one more')), { errorName: 'OVERLOADED' });
    proposals.rejectAll(unavailable);
    assert.equal(
      (await Promise.allSettled(all)).filter(({ status }) => status === 'rejected').length,
      PROPOSALS_MAX,
    );
    void proposals.add(command('again')).catch(() => undefined);
    assert.equal(proposals.waiting, 1);
  });
});
