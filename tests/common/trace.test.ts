import assert from 'node:assert/strict';
import { createPrng } from '../../common/prng.js';
import { type Span, Tracer, traced } from '../../common/trace.js';

function recording() {
  const spans: Span[] = [];
  let now = 0;
  const tracer = new Tracer({ add: (span) => spans.push(span) }, createPrng(1), () => now);
  return {
    spans,
    tracer,
    pass: (us: number) => {
      now += us;
    },
  };
}

describe('tracing', () => {
  it('notes begin and duration of a span once, with what it failed with', () => {
    const { spans, tracer, pass } = recording();
    pass(5);
    const end = tracer.begin('wire', 'call', 7);
    pass(10);
    end(new TypeError('bad'));
    end();
    assert.deepEqual(spans, [{ trace: 7, stage: 'wire', name: 'call', at: 5, us: 10, error: 'TypeError' }]);
  });

  it('keeps the request that is worked for over awaits, and apart from others', async () => {
    const { tracer } = recording();
    const seen: number[] = [];
    const work = async (): Promise<void> => {
      await Promise.resolve();
      seen.push(tracer.current);
    };
    await Promise.all([tracer.run(1, work), tracer.run(2, work), work()]);
    assert.deepEqual(seen.sort(), [0, 1, 2]);
  });

  it('begins a request where there is none, and goes on with the one there is', async () => {
    const { spans, tracer } = recording();
    await tracer.request('fuse', 'outer', () => tracer.request('wire', 'inner', () => Promise.resolve()));
    await tracer.request('fuse', 'other', () => Promise.resolve());
    const trace = new Map(spans.map((span) => [span.name, span.trace]));
    assert.ok((trace.get('outer') as number) > 0);
    assert.equal(trace.get('inner'), trace.get('outer'));
    assert.notEqual(trace.get('other'), trace.get('outer'));
  });

  it('wraps the methods that have a stage, on the object itself, and passes results and errors on', async () => {
    const { spans, tracer } = recording();
    class Counter {
      #count = 0;
      add = async (by: number): Promise<number> => {
        this.#count += by;
        return this.#count;
      };
      async fail(): Promise<void> {
        throw new Error(`at ${this.#count}`);
      }
      get count(): number {
        return this.#count;
      }
      reset(): void {
        this.#count = 0;
      }
    }
    const stageOf = (method: string) => (method === 'reset' ? undefined : ('store' as const));
    const counter = traced(new Counter(), tracer, 'counter ', stageOf);
    assert.equal(await counter.add(2), 2);
    await assert.rejects(counter.fail(), /at 2/);
    assert.equal(counter.count, 2);
    counter.reset();
    assert.equal(counter.count, 0);
    assert.deepEqual(
      spans.map(({ name, stage, error }) => ({ name, stage, error })),
      [
        { name: 'counter add', stage: 'store', error: undefined },
        { name: 'counter fail', stage: 'store', error: 'Error' },
      ],
    );
  });
});
