import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { nodeDisk } from '../../../common/disk.js';
import { unverifiedText } from '../../../metaserver/server.js';
import { ReplicatedState, type StateOptions } from '../../../metaserver/service/replicated-state.js';
import { lmdbFiles } from '../../../metaserver/store/store-files.js';
import { Command } from '../../../proto/gen/meta.js';
import { until } from '../replica/cluster.js';
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
  const open = async (name: string, options: StateOptions = {}): Promise<ReplicatedState> => {
    const home = path.join(dir, name);
    await nodeDisk.mkdir(home);
    const state = await ReplicatedState.open(nodeDisk, home, options);
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

  describe('that is read as a whole while it is in use, after a crash', () => {
    const ATTRIBUTES = 200;
    const content = (n: number): Buffer => Buffer.from(`the content of attribute ${n}`);
    const BEHIND = { verifyFirstMaxBytes: 0 };

    /** What a killed process leaves: the file as it was flushed, without the mark of a clean end. */
    async function crashed(name: string): Promise<string> {
      const state = await open('before');
      state.apply([command(1, { $case: 'initCluster', value: INIT }), command(2, openSession('u1'))]);
      const session = state.sessions()[0]?.id as number;
      for (let n = 1; n <= ATTRIBUTES; n++) {
        const value = { ino: 1, name: Buffer.from(`user.${n}`), value: content(n), flags: 0 };
        const mutation = { session, seq: n, ackedBelow: n, op: { $case: 'setXattr', value } } as const;
        state.apply([command(2 + n, { $case: 'mutation', value: mutation })]);
      }
      await state.flushed();
      await nodeDisk.mkdir(path.join(dir, name));
      const file = path.join(dir, name, 'state.mdb');
      await copyFile(path.join(dir, 'before', 'state.mdb'), file);
      return file;
    }
    const names = async (name: string): Promise<string[]> => (await readdir(path.join(dir, name))).sort();

    it('serves meanwhile, takes changes, and is known to be sound after a clean end', async () => {
      await crashed('a');
      const state = await open('a', BEHIND);
      assert.deepEqual(state.unverified, {});
      state.apply([command(500, openSession('late'))]);
      assert.equal(state.sessions().length, 2);
      state.verifyBehind();
      await until(() => !state.unverified, 'it was read');
      await state.close();
      assert.ok((await names('a')).includes('state.clean'));
      assert.equal((await open('a', BEHIND)).unverified, undefined);
    });

    it('tells of damage that nobody has come across', async () => {
      const file = await crashed('a');
      const bytes = await readFile(file);
      const sound = content(77);
      const damaged = Buffer.from(sound).fill('?', 2, 3);
      for (let at = bytes.indexOf(sound); at >= 0; at = bytes.indexOf(sound, at + 1)) bytes.set(damaged, at);
      await writeFile(file, bytes);
      const told: string[] = [];
      const state = await open('a', { ...BEHIND, onFailure: (error) => told.push(error.errorName) });
      assert.equal(state.appliedIndex(), 2 + ATTRIBUTES);
      assert.deepEqual(told, []);
      state.verifyBehind();
      await until(() => told.length > 0, 'the damage is told');
      assert.deepEqual(told, ['CORRUPT']);
      await state.close();
      assert.ok(!(await names('a')).includes('state.clean'), 'the next start looks again');
    });

    it('says why when it could not look, goes on serving, and leaves it to the next start', async () => {
      await crashed('a');
      const told: string[] = [];
      const state = await open('a', {
        ...BEHIND,
        onFailure: () => told.push('damage'),
        onUnverified: (error) => told.push(error.message),
        files: { ...lmdbFiles, verify: () => Promise.reject(new Error('spawn EAGAIN')) },
      });
      state.verifyBehind();
      await until(() => told.length > 0, 'it is told');
      assert.deepEqual(told, ['spawn EAGAIN']);
      assert.deepEqual(state.unverified, { failure: 'spawn EAGAIN' });
      assert.match(unverifiedText(state.unverified ?? {}), /could not be read .* spawn EAGAIN/);
      assert.equal(state.sessions().length, 1);
      await state.close();
      assert.ok(!(await names('a')).includes('state.clean'));
      assert.deepEqual((await open('a', BEHIND)).unverified, {});
    });

    it('is read from the beginning by the next start when it was closed before the end', async () => {
      await crashed('a');
      const state = await open('a', BEHIND);
      state.verifyBehind();
      await state.close();
      assert.ok(!(await names('a')).includes('state.clean'));
      assert.deepEqual((await open('a', BEHIND)).unverified, {});
    });
  });
});
