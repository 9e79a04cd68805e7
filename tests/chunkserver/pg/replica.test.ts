import assert from 'node:assert/strict';
import { packContent, packList } from '../../../chunkserver/pg/pack.js';
import { type Ask, FULL_RETRY_MS, LIST_CHUNKS, type PeerCall } from '../../../chunkserver/pg/types.js';
import { HoldfastError } from '../../../proto/errors.js';
import { FRAME_FLAG_END, FrameType } from '../../../proto/frame-header.js';
import { answers, asksOf, CoreFixture, call, IN_SYNC, OUT, only, pgMap, RECOVERING } from './core-fixture.js';

describe('a replica of a group', () => {
  const replica = (): CoreFixture => {
    const f = new CoreFixture({ last: { epoch: 1, seq: 5 }, clean: true });
    f.map(pgMap(2, 2, [2, IN_SYNC], [1, IN_SYNC]));
    f.link('in2');
    return f;
  };
  const write = (f: CoreFixture, versionSeq: number, epoch = 2, from = 2) =>
    f.step({
      kind: 'call',
      call: call(from, FrameType.REPLICATE_WRITE, { epoch, versionEpoch: epoch, versionSeq, ino: 1 }),
    });

  it('takes the next operation of its primary and answers when it is written', () => {
    const f = replica();
    const { op } = only(write(f, 6), 'apply')[0]!;
    const answered = only(f.step({ kind: 'applied', op, error: undefined, allocatedDelta: 0 }), 'answerCall');
    assert.deepEqual(
      answered.map(({ error }) => error),
      [undefined],
    );
  });

  it('refuses other servers, old epochs and gaps', () => {
    const refusal = (effects: ReturnType<typeof write>) => {
      assert.deepEqual(only(effects, 'apply'), []);
      return only(effects, 'answerCall')[0]?.error;
    };
    assert.equal(refusal(write(replica(), 6, 2, 3)), 'NOT_PRIMARY');
    assert.equal(refusal(write(replica(), 6, 1)), 'STALE_EPOCH');
    const f = replica();
    assert.equal(refusal(write(f, 7)), 'PROTOCOL');
    assert.equal(refusal(write(f, 6)), 'PROTOCOL');
  });

  it('keeps operations of a newer epoch until its map is as new', () => {
    const f = replica();
    assert.deepEqual(write(f, 6, 3), []);
    assert.deepEqual(write(f, 7, 3), []);
    const effects = f.map(pgMap(3, 2, [2, IN_SYNC], [1, IN_SYNC], [3, OUT]));
    assert.deepEqual(
      only(effects, 'apply').map(({ op }) => op.version.seq),
      [6, 7],
    );
  });

  it('forgets what waits when the connection it came over is replaced', () => {
    const f = replica();
    write(f, 6, 3);
    f.step({ kind: 'linkDown', server: 2, side: 'in', reason: 'replaced' });
    assert.deepEqual(only(f.map(pgMap(3, 2, [2, IN_SYNC], [1, IN_SYNC])), 'apply'), []);
  });

  it('answers what waits when only the other connection to its sender breaks', () => {
    const f = new CoreFixture().lead();
    const list = call(3, FrameType.LIST, { epoch: 3, length: 1 }, 'out');
    assert.deepEqual(f.step({ kind: 'call', call: list }), []);
    f.step({ kind: 'linkDown', server: 3, side: 'in', reason: 'another group has no use for it' });
    const effects = f.map(pgMap(3, 1, [1, IN_SYNC], [2, IN_SYNC], [3, RECOVERING]));
    assert.equal(only(effects, 'serve').length, 1);
  });

  it('begins its recovery when the map drops it while it copies for a primary that peers', () => {
    const f = replica();
    f.map(pgMap(3, 3, [2, IN_SYNC], [1, IN_SYNC], [3, IN_SYNC]));
    const resync = call(2, FrameType.RESYNC, { epoch: 3, versionEpoch: 2, versionSeq: 9 });
    const [copying] = asksOf(f.step({ kind: 'call', call: resync }), FrameType.LIST);
    const effects = f.map(pgMap(4, 3, [2, IN_SYNC], [1, RECOVERING], [3, IN_SYNC]));
    assert.ok(copying?.cancelled);
    assert.equal(only(effects, 'answerCall')[0]?.error, 'STALE_EPOCH');
    assert.equal(asksOf(effects, FrameType.LIST).length, 1);
  });

  it('says again that it has caught up when the map has changed: the primary may have seen it out between', () => {
    const f = replica();
    const [seqs] = asksOf(f.map(pgMap(3, 2, [2, IN_SYNC], [1, RECOVERING])), FrameType.LIST);
    const fields = { flags: FRAME_FLAG_END, versionEpoch: 2, versionSeq: 5 };
    const [chunks] = asksOf(f.reply(seqs!, fields), FrameType.LIST);
    const [state] = only(f.reply(chunks!, fields, packList([])), 'setState');
    const [first] = asksOf(f.step({ kind: 'stored', done: state!.done!, error: undefined }));
    assert.equal(first?.fields.type, FrameType.CAUGHT_UP);
    f.reply(first!);
    const [again] = asksOf(f.map(pgMap(5, 2, [2, IN_SYNC], [1, RECOVERING])));
    assert.deepEqual([again?.fields.type, again?.fields.epoch], [FrameType.CAUGHT_UP, 5]);
  });

  describe('that copies a page', () => {
    const seen = { versionEpoch: 2, flags: FRAME_FLAG_END };
    const chunkOf = (ino: number, seq: number) => ({ ino, chunk: 0, version: { epoch: 2, seq }, bytes: 4 });
    const forward = (f: CoreFixture, type: PeerCall['type'], versionSeq: number, ino: number, aux = 0) =>
      f.step({
        kind: 'call',
        call: call(2, type, { epoch: 2, versionEpoch: 2, versionSeq, ino, aux, length: 100, truncateSeq: 1 }),
      });
    /** The source has inodes 1 and 5, and both are asked for. */
    const copying = (): { f: CoreFixture; fetches: Ask[] } => {
      const f = new CoreFixture();
      f.link('in2');
      const [seqs] = asksOf(f.map(pgMap(2, 2, [2, IN_SYNC], [1, RECOVERING])), FrameType.LIST);
      const [chunks] = asksOf(f.reply(seqs!, { ...seen, versionSeq: 5 }), FrameType.LIST);
      const listed = f.reply(
        chunks!,
        { ...seen, versionSeq: 5 },
        packList([1, 5].map((ino) => chunkOf(ino, 5))),
      );
      return { f, fetches: asksOf(listed, FrameType.FETCH) };
    };
    const content = (seq: number) =>
      Buffer.concat(
        packContent({
          version: { epoch: 2, seq },
          extents: [{ offset: 0, data: Buffer.from('data') }],
          truncateSeq: 0,
        }),
      );
    /** The content that was installed, and what happened when it was. */
    const fetched = (f: CoreFixture, ask: Ask, versionSeq: number) => {
      const fields = { versionEpoch: 2, versionSeq, aux: 1 };
      const [install] = only(f.reply(ask, fields, content(versionSeq)), 'install');
      const effects = f.step({ kind: 'stored', done: install!.done!, error: undefined });
      return { content: install!.content, effects };
    };

    it('goes on while files are cut to nothing and removed, in it and beside it', () => {
      const { f, fetches } = copying();
      const effects = [
        ...forward(f, FrameType.REPLICATE_WRITE, 6, 5),
        ...forward(f, FrameType.REPLICATE_DELETE, 7, 9),
        ...forward(f, FrameType.REPLICATE_TRUNCATE, 8, 5),
        ...forward(f, FrameType.REPLICATE_TRUNCATE, 9, 5, 300),
      ];
      assert.deepEqual(
        fetches.map(({ fields, cancelled }) => [fields.ino, cancelled]),
        [
          [1, false],
          [5, false],
        ],
      );
      assert.deepEqual(asksOf(effects), []);
      assert.deepEqual(
        only(effects, 'apply').map(({ op }) => op.version.seq),
        [7, 8, 9],
      );
    });

    it('copies what is left of a file that was cut meanwhile', () => {
      const { f, fetches } = copying();
      forward(f, FrameType.REPLICATE_WRITE, 6, 5);
      forward(f, FrameType.REPLICATE_TRUNCATE, 7, 5);
      forward(f, FrameType.REPLICATE_WRITE, 8, 5);
      assert.ok(!fetches.some(({ cancelled }) => cancelled));
      assert.equal(fetched(f, fetches[1]!, 5).content, undefined, 'read before it was cut');
      const { content: other, effects } = fetched(f, fetches[0]!, 8);
      assert.equal(other?.version.seq, 8);
      assert.deepEqual(
        only(effects, 'apply').map(({ op }) => [op.ino, op.version.seq]),
        [[5, 8]],
      );
      assert.equal(only(effects, 'setState').length, 1, 'the copy is complete');
    });

    it('takes a copy that was read behind the cut as it is', () => {
      const { f, fetches } = copying();
      forward(f, FrameType.REPLICATE_DELETE, 6, 5);
      forward(f, FrameType.REPLICATE_WRITE, 7, 5);
      assert.equal(fetched(f, fetches[1]!, 7).content?.version.seq, 7);
      assert.deepEqual(only(fetched(f, fetches[0]!, 7).effects, 'apply'), []);
    });

    it('is begun anew when a chunk in it loses its end', () => {
      const { f, fetches } = copying();
      const effects = forward(f, FrameType.REPLICATE_TRUNCATE, 6, 5, 50);
      assert.ok(fetches.every(({ cancelled }) => cancelled));
      assert.equal(asksOf(effects, FrameType.LIST).length, 1);
    });
  });

  describe('whose disk is full', () => {
    const FULL = new HoldfastError('ENOSPC');
    const list = (versionSeq: number) => {
      const chunk = { ino: 1, chunk: 0, version: { epoch: 2, seq: versionSeq }, bytes: 4 };
      return [{ flags: FRAME_FLAG_END, versionSeq }, packList([chunk])] as const;
    };
    const whole = { flags: FRAME_FLAG_END, versionEpoch: 2, versionSeq: 6 };
    /** Recovering, up to date but for a write that the store refuses although it took the next one of that chunk. */
    const refusing = async (): Promise<{ f: CoreFixture; asks: ReturnType<typeof asksOf> }> => {
      const f = new CoreFixture({ last: { epoch: 2, seq: 6 }, clean: true });
      f.link('in2');
      const [seqs] = asksOf(f.map(pgMap(2, 2, [2, IN_SYNC], [1, RECOVERING])), FrameType.LIST);
      await f.store.write(0, { ino: 1, chunk: 0 }, 0, Buffer.from('late'), { epoch: 2, seq: 8 });
      const [chunks] = asksOf(f.reply(seqs!, whole), FrameType.LIST);
      const [state] = only(f.reply(chunks!, ...list(8)), 'setState');
      assert.ok(state?.done, 'nothing differs');
      const announced = asksOf(f.step({ kind: 'stored', done: state.done, error: undefined }));
      const { op } = only(write(f, 7), 'apply')[0]!;
      write(f, 8);
      const effects = f.step({ kind: 'applied', op, error: FULL, allocatedDelta: 0 });
      assert.equal(only(effects, 'answerCall')[0]?.error, 'ENOSPC');
      return { f, asks: announced };
    };

    it('copies anew what the refused write touched, whatever its version says, and not at once', async () => {
      const { f, asks } = await refusing();
      assert.ok(asks[0]?.cancelled, 'it is not complete any more');
      f.now += FULL_RETRY_MS - 1;
      assert.deepEqual(asksOf(f.step({ kind: 'tick' })), []);
      f.now += 1;
      const [seqs] = asksOf(f.step({ kind: 'tick' }), FrameType.LIST);
      const [chunks] = asksOf(f.reply(seqs!, { ...whole, versionSeq: 8 }), FrameType.LIST);
      const [fetch] = asksOf(f.reply(chunks!, ...list(8)), FrameType.FETCH);
      assert.equal(fetch?.fields.ino, 1);
      const [install] = only(f.reply(fetch!, { aux: 0, versionSeq: 8 }), 'install');
      const [state] = only(f.step({ kind: 'stored', done: install!.done!, error: undefined }), 'setState');
      assert.ok(state?.done, 'complete now');
    });

    it('waits longer each time that a copy finds no room', async () => {
      const { f } = await refusing();
      const waits: number[] = [];
      for (let wait = 0; waits.length < 4; wait += 100, f.now += 100) {
        const [seqs] = asksOf(f.step({ kind: 'tick' }), FrameType.LIST);
        if (!seqs) continue;
        waits.push(wait);
        wait = 0;
        const chunks =
          seqs.fields.aux === LIST_CHUNKS ? seqs : asksOf(f.reply(seqs, { ...whole, versionSeq: 8 }))[0]!;
        const [fetch] = asksOf(f.reply(chunks, ...list(8)), FrameType.FETCH);
        const [install] = only(f.reply(fetch!, { aux: 0, versionSeq: 8 }), 'install');
        f.step({ kind: 'stored', done: install!.done!, error: FULL });
      }
      assert.ok(
        waits.every((wait, i) => i === 0 || wait >= 1.9 * (waits[i - 1] as number)),
        waits.join(),
      );
    });

    it('gives up the lead of a group of which its store refused a write, and copies it from another', () => {
      const f = new CoreFixture({ last: { epoch: 1, seq: 0 }, clean: true }).lead();
      const { op } = only(f.request('write', { ino: 1 }), 'apply')[0]!;
      const effects = f.step({ kind: 'applied', op, error: FULL, allocatedDelta: 0 });
      assert.deepEqual(
        only(effects, 'reportFailed').map(({ server, epoch }) => ({ server, epoch })),
        [{ server: 1, epoch: 1 }],
      );
      assert.equal(f.core.active, false);
      f.link('in2');
      const recovering = f.map(pgMap(2, 2, [1, RECOVERING], [2, IN_SYNC], [3, IN_SYNC]));
      const [seqs] = asksOf(recovering, FrameType.LIST);
      assert.equal(seqs?.to, 2);
    });
  });

  it('never answers a client', () => {
    assert.deepEqual(answers(replica().request('read', { epoch: 2 })), ['NOT_PRIMARY']);
  });

  it('copies nothing of a group that it gets back before what was left of it is gone', () => {
    const f = replica();
    const [drop] = only(f.map(pgMap(3, 2, [2, IN_SYNC], [3, IN_SYNC])), 'drop');
    assert.deepEqual(asksOf(f.map(pgMap(4, 2, [2, IN_SYNC], [3, IN_SYNC], [1, RECOVERING]))), []);
    const effects = f.step({ kind: 'stored', done: drop!.done, error: undefined });
    assert.equal(asksOf(effects, FrameType.LIST).length, 1);
  });

  it('drops a group that is complete elsewhere, and keeps one that is not', () => {
    assert.deepEqual(only(replica().map(pgMap(3, 2, [2, IN_SYNC], [3, RECOVERING])), 'drop'), []);
    const newer = new CoreFixture({ last: { epoch: 9, seq: 4 }, clean: true });
    assert.deepEqual(only(newer.map(pgMap(3, 2, [2, IN_SYNC], [3, IN_SYNC])), 'drop'), []);
    assert.equal(only(replica().map(pgMap(3, 2, [2, IN_SYNC], [3, IN_SYNC])), 'drop').length, 1);
  });
});
