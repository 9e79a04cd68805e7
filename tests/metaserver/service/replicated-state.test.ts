import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { nodeDisk } from '../../../common/disk.js';
import { ReplicatedState } from '../../../metaserver/service/replicated-state.js';
import { Command } from '../../../proto/gen/meta.js';
import { INIT } from './fakes.js';

type Body = NonNullable<Command['body']>;

function command(index: number, body: Body) {
  return { index, data: Buffer.from(Command.encode({ time: { sec: 1, nsec: 2 }, body }).finish()) };
}

const openSession = (clientUuid: string): Body => ({
  $case: 'openSession',
  value: { clientUuid, hostname: 'h', mountPoint: '/m' },
});

describe('the state machine in its file', () => {
  let dir: string;
  const opened: ReplicatedState[] = [];
  const open = async (name: string): Promise<ReplicatedState> => {
    const home = path.join(dir, name);
    await nodeDisk.mkdir(home);
    const state = await ReplicatedState.open(nodeDisk, home);
    opened.push(state);
    return state;
  };

  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'holdfast-state-'));
  });
  afterEach(async () => {
    for (const state of opened.splice(0)) await state.close();
    await rm(dir, { recursive: true, force: true });
  });

  it('is there again after it was closed', async () => {
    const state = await open('a');
    state.apply([command(3, { $case: 'initCluster', value: INIT }), command(5, openSession('u1'))]);
    assert.equal(await state.flushed(), 5);
    await state.close();
    const again = await open('a');
    assert.deepEqual(
      [again.appliedIndex(), again.cluster()?.clusterId, again.sessions().length],
      [5, 'c1', 1],
    );
  });

  it('copies itself with the index that the copy holds, and another one becomes that copy', async () => {
    const source = await open('a');
    source.apply([command(1, { $case: 'initCluster', value: INIT }), command(2, openSession('u1'))]);
    const copy = path.join(dir, 'copy');
    assert.equal(await source.backup(copy), 2);
    assert.deepEqual((await readdir(dir)).sort(), ['a', 'copy']);

    const target = await open('b');
    target.apply([command(1, { $case: 'initCluster', value: { ...INIT, clusterId: 'c2' } })]);
    await target.restore(copy);
    assert.deepEqual([target.appliedIndex(), target.map().clusterId], [2, 'c1']);
    target.apply([command(7, openSession('u2'))]);
    await target.close();
    const again = await open('b');
    assert.deepEqual(
      again.sessions().map((session) => session.clientUuid),
      ['u1', 'u2'],
    );
    assert.equal(again.appliedIndex(), 7);
    assert.deepEqual((await readdir(dir)).sort(), ['a', 'b']);
  });
});
