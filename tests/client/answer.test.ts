import assert from 'node:assert/strict';
import { type Answer, andThen, lastly, onceFree, undoing } from '../../client/answer.js';
import { type Deferred, deferred } from '../../common/deferred.js';

const WAYS: ReadonlyArray<readonly [string, <T>(value: T) => Answer<T>, () => Answer<never>]> = [
  [
    'at once',
    (value) => value,
    () => {
      throw new Error('refused');
    },
  ],
  ['later', (value) => Promise.resolve(value), () => Promise.reject(new Error('refused'))],
];

/** What a call comes to, and whether it was there at once. */
async function outcome<T>(call: () => Answer<T>): Promise<unknown> {
  try {
    return await call();
  } catch (error) {
    return (error as Error).message;
  }
}

describe('answers', () => {
  it('that are there at once go on at once', () => {
    assert.equal(
      andThen(1, (one) => one + 1),
      2,
    );
    assert.equal(
      lastly(
        () => 1,
        () => {},
      ),
      1,
    );
    assert.equal(
      undoing(
        () => 1,
        () => assert.fail('nothing failed'),
      ),
      1,
    );
  });

  it('that have to wait for one thing after the other come when there is none, in the same turn', async () => {
    assert.equal(
      onceFree(
        () => undefined,
        () => 1,
      ),
      1,
    );
    const waits: Deferred<void>[] = [deferred(), deferred()];
    let asked = 0;
    let free = false;
    const blocked = (): Promise<void> | undefined => {
      const wait = waits[asked++];
      free = wait === undefined;
      queueMicrotask(() => {
        free = false;
      });
      return wait?.promise;
    };
    const answer = Promise.resolve(onceFree(blocked, () => free));
    waits[0]?.resolve();
    await waits[0]?.promise;
    assert.equal(asked, 2);
    waits[1]?.resolve();
    assert.equal(await answer, true);
  });

  for (const [when, answer, refusal] of WAYS) {
    it(`${when}: what comes last comes behind success and failure, and is waited for`, async () => {
      for (const [lastWhen, lastAnswer] of WAYS) {
        for (const call of [() => answer('answer'), refusal]) {
          const steps: string[] = [];
          const last = (): Answer<void> => andThen(lastAnswer('last'), (step) => void steps.push(step));
          const said = await outcome(() => lastly<string>(call, last));
          assert.deepEqual([said, ...steps], [call === refusal ? 'refused' : 'answer', 'last'], lastWhen);
        }
      }
    });

    it(`${when}: a failure is undone before it goes on, success is not`, async () => {
      for (const [undoWhen, undoAnswer] of WAYS) {
        const steps: string[] = [];
        const undo = (): Answer<void> => andThen(undoAnswer('undone'), (step) => void steps.push(step));
        assert.equal(await outcome(() => undoing<string>(() => answer('answer'), undo)), 'answer');
        assert.deepEqual(steps, []);
        assert.equal(await outcome(() => undoing<string>(refusal, undo)), 'refused', undoWhen);
        assert.deepEqual(steps, ['undone']);
      }
    });

    it(`${when}: what ends a call may fail in its place`, async () => {
      assert.equal(await outcome(() => lastly<string>(() => answer('answer'), refusal)), 'refused');
      assert.equal(await outcome(() => andThen(answer('answer'), refusal)), 'refused');
    });
  }
});
