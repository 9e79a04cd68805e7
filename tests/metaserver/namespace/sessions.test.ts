import assert from 'node:assert/strict';
import { MAX_UNACKED_MUTATIONS } from '../../../metaserver/namespace/sessions.js';
import { MetaStateMachine } from '../../../metaserver/namespace/state-machine.js';
import { type CommandResult, Mutation } from '../../../proto/gen/meta.js';
import { S_IFREG } from '../../../proto/types.js';
import { b, errorOf, makeNode, Namespace, type Op, setAttr } from './harness.js';

describe('namespace: sessions', () => {
  let fs: Namespace;
  beforeEach(() => {
    fs = new Namespace();
  });

  const send = (seq: number, ackedBelow: number, op: Op | undefined, session = fs.session): CommandResult =>
    fs.command({ $case: 'mutation', value: { ...Mutation.create({}), session, seq, ackedBelow, op } });
  const results = (): number => [...fs.kv.range(b('R'), b('S'))].length;

  it('answers a repeated mutation with its first result, and runs it once', () => {
    const first = send(1, 1, makeNode(fs.root, 'f', S_IFREG));
    assert.equal(first.mutation?.created, true);
    assert.deepEqual(send(1, 1, makeNode(fs.root, 'f', S_IFREG)), { ...first, repeated: true });
    assert.equal(errorOf(send(2, 1, makeNode(fs.root, 'f', S_IFREG))), 'EEXIST');
    assert.deepEqual(send(1, 1, fs.unlink(fs.root, 'f')), { ...first, repeated: true });
    assert.deepEqual(fs.names(fs.root), ['f']);
  });

  it('repeats a refusal too, even when it would succeed now', () => {
    const refused = send(1, 1, fs.unlink(fs.root, 'f'));
    assert.equal(errorOf(refused), 'ENOENT');
    send(2, 1, makeNode(fs.root, 'f', S_IFREG));
    assert.deepEqual(send(1, 1, fs.unlink(fs.root, 'f')), { ...refused, repeated: true });
    assert.deepEqual(fs.names(fs.root), ['f']);
  });

  it('takes mutations in any order within the window', () => {
    assert.equal(errorOf(send(3, 1, makeNode(fs.root, 'c', S_IFREG))), 'ok');
    assert.equal(errorOf(send(1, 1, makeNode(fs.root, 'a', S_IFREG))), 'ok');
    assert.equal(errorOf(send(2, 1, makeNode(fs.root, 'b', S_IFREG))), 'ok');
    assert.deepEqual(fs.names(fs.root), ['c', 'a', 'b']);
  });

  it('forgets what is acknowledged, and refuses what it has forgotten', () => {
    for (let seq = 1; seq <= 5; seq++) send(seq, 1, makeNode(fs.root, `f${seq}`, S_IFREG));
    assert.equal(results(), 5);
    send(6, 5, makeNode(fs.root, 'f6', S_IFREG));
    assert.equal(results(), 2);
    assert.equal(errorOf(send(4, 1, makeNode(fs.root, 'again', S_IFREG))), 'PROTOCOL');
    assert.equal(errorOf(send(5, 2, makeNode(fs.root, 'again', S_IFREG))), 'ok');
    assert.equal(fs.names(fs.root).includes('again'), false);
  });

  it('keeps the result of a mutation while it acknowledges the ones before', () => {
    const first = send(1, 1, makeNode(fs.root, 'f', S_IFREG));
    send(2, 2, makeNode(fs.root, 'g', S_IFREG));
    assert.equal(errorOf(send(1, 1, makeNode(fs.root, 'f', S_IFREG))), 'PROTOCOL');
    assert.equal(first.error, 0);
    assert.equal(errorOf(send(2, 2, makeNode(fs.root, 'g', S_IFREG))), 'ok');
  });

  it('bounds the results that are not acknowledged', () => {
    assert.equal(errorOf(send(MAX_UNACKED_MUTATIONS, 1, makeNode(fs.root, 'f', S_IFREG))), 'ok');
    assert.equal(errorOf(send(MAX_UNACKED_MUTATIONS + 1, 1, makeNode(fs.root, 'g', S_IFREG))), 'OVERLOADED');
    assert.equal(errorOf(send(MAX_UNACKED_MUTATIONS + 1, 2, makeNode(fs.root, 'g', S_IFREG))), 'ok');
    assert.equal(errorOf(send(2 ** 50, 2 ** 50, makeNode(fs.root, 'h', S_IFREG))), 'ok');
    assert.equal(results(), 1);
  });

  it('refuses senseless numbers and empty mutations', () => {
    assert.equal(errorOf(send(0, 0, makeNode(fs.root, 'f', S_IFREG))), 'PROTOCOL');
    assert.equal(errorOf(send(1, 2, makeNode(fs.root, 'f', S_IFREG))), 'PROTOCOL');
    assert.equal(errorOf(send(1, 1, undefined)), 'PROTOCOL');
    assert.deepEqual(fs.names(fs.root), []);
  });

  it('gives one session to a client uuid, and numbers sessions once', () => {
    assert.equal(fs.openSession('client-1'), fs.session);
    const second = fs.openSession('client-2');
    assert.notEqual(second, fs.session);
    assert.deepEqual(fs.machine.session(second), {
      id: second,
      clientUuid: 'client-2',
      hostname: 'host',
      mountPoint: '/mnt',
      place: '',
      wantsLeases: false,
      forgottenBelow: 1,
      maxSeq: 0,
    });
    fs.command({ $case: 'expireSession', value: { session: second } });
    const third = fs.openSession('client-2');
    assert.ok(third > second);
    assert.deepEqual(
      fs.machine.sessions().map(({ id }) => id),
      [fs.session, third],
    );
  });

  it('refuses uuids and names that are empty or too long', () => {
    const open = (clientUuid: string, hostname: string): string =>
      errorOf(fs.command({ $case: 'openSession', value: { clientUuid, hostname, mountPoint: '' } }));
    assert.equal(open('', 'h'), 'PROTOCOL');
    assert.equal(open('u'.repeat(129), 'h'), 'PROTOCOL');
    assert.equal(open('u', 'h'.repeat(4097)), 'PROTOCOL');
    assert.equal(open('u', 'ü'), 'ok');
  });

  it('keeps sessions apart', () => {
    const other = fs.openSession('client-2');
    send(1, 1, makeNode(fs.root, 'f', S_IFREG));
    assert.equal(errorOf(send(1, 1, makeNode(fs.root, 'g', S_IFREG), other)), 'ok');
    assert.deepEqual(fs.names(fs.root), ['f', 'g']);
  });

  it('ends a session by expiry and by its own wish, with all its results', () => {
    const other = fs.openSession('client-2');
    for (let seq = 1; seq <= 3; seq++) send(seq, 1, makeNode(fs.root, `${seq}`, S_IFREG), other);
    assert.equal(errorOf(send(4, 1, { $case: 'closeSession', value: {} }, other)), 'ok');
    assert.equal(fs.machine.session(other), undefined);
    assert.equal(results(), 0);
    assert.equal(errorOf(send(4, 1, { $case: 'closeSession', value: {} }, other)), 'SESSION_EXPIRED');
    fs.command({ $case: 'expireSession', value: { session: fs.session } });
    fs.command({ $case: 'expireSession', value: { session: fs.session } });
    assert.equal(errorOf(send(1, 1, setAttr(fs.root, { uid: 1 }))), 'SESSION_EXPIRED');
    assert.deepEqual([...fs.kv.range(b('U'), b('V')), ...fs.kv.range(b('Z'), b('['))], []);
  });

  it('remembers who expired until it is fenced, but not who ended its session itself', () => {
    const other = fs.openSession('client-2');
    const third = fs.openSession('client-3');
    send(1, 1, { $case: 'closeSession', value: {} }, other);
    fs.command({ $case: 'expireSession', value: { session: fs.session } });
    fs.command({ $case: 'expireSession', value: { session: 99 } });
    const again = new MetaStateMachine(fs.kv);
    for (const machine of [fs.machine, again]) {
      assert.deepEqual(machine.fencing(), [fs.session]);
      assert.deepEqual(machine.fence(), { version: machine.appliedIndex(), upto: third, live: [third] });
    }
    fs.command({ $case: 'sessionFenced', value: { session: fs.session } });
    assert.deepEqual([fs.machine.fencing(), [...fs.kv.range(b('F'), b('G'))]], [[], []]);
  });

  it('remembers everything over a restart', () => {
    const first = send(1, 1, makeNode(fs.root, 'f', S_IFREG));
    const again = new MetaStateMachine(fs.kv);
    assert.deepEqual(again.sessions(), fs.machine.sessions());
    assert.equal(again.appliedIndex(), fs.machine.appliedIndex());
    const restarted = Object.assign(Object.create(Namespace.prototype), fs, { machine: again }) as Namespace;
    const value = {
      ...Mutation.create({}),
      session: fs.session,
      seq: 1,
      ackedBelow: 1,
      op: fs.unlink(1, 'f'),
    };
    assert.deepEqual(restarted.command({ $case: 'mutation', value }), { ...first, repeated: true });
    assert.ok(restarted.openSession('client-9') > fs.session);
  });
});
