import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { MutationOp } from '../../../client/meta/api.js';
import {
  MUTATIONS_IN_FLIGHT_MAX,
  type PendingMutation,
  RequestLedger,
} from '../../../client/meta/request-ledger.js';
import { HoldfastError } from '../../../proto/errors.js';
import { MutationReply } from '../../../proto/gen/meta.js';

const OP: MutationOp = { $case: 'closeSession', value: {} };
const READ = { $case: 'getAttr' as const, value: { ino: 1 } };
const REPLY = { ...MutationReply.create({}), asOf: 0 };
const UNAVAILABLE = new HoldfastError('UNAVAILABLE');

function add(ledger: RequestLedger, count: number): void {
  for (let index = 0; index < count; index++) ledger.addMutation(OP, 0).result.promise.catch(() => {});
}

function sendAll(ledger: RequestLedger, now = 0): PendingMutation[] {
  const sent: PendingMutation[] = [];
  for (let one = ledger.next(now); one; one = ledger.next(now)) if (one.kind === 'mutation') sent.push(one);
  return sent;
}

const seqs = (sent: readonly PendingMutation[]): number[] => sent.map(({ seq }) => seq);

describe('RequestLedger', () => {
  it('sends again after a lost connection in the old order, before anything new', () => {
    const ledger = new RequestLedger(Infinity);
    add(ledger, 3);
    const [, second] = sendAll(ledger);
    ledger.answeredMutation(second as PendingMutation, REPLY);
    add(ledger, 1);
    ledger.disconnected();
    assert.deepEqual(seqs(sendAll(ledger)), [1, 3, 4]);
  });

  it('does not count an answer of a former connection', () => {
    const ledger = new RequestLedger(Infinity);
    add(ledger, 1);
    const [first] = sendAll(ledger);
    ledger.disconnected();
    ledger.failed(first as PendingMutation, UNAVAILABLE, 0);
    assert.deepEqual(seqs(sendAll(ledger)), [1]);
    assert.equal(ledger.inFlight, 1);
  });

  it('tells when changes whose callers have gone are answered, also by an error or with the session', async () => {
    const ledger = new RequestLedger(Infinity);
    const gone = new HoldfastError('EINTR');
    add(ledger, 3);
    const [first, second, third] = sendAll(ledger) as [PendingMutation, PendingMutation, PendingMutation];
    assert.ok(!ledger.orphansSettled);
    for (const one of [first, second, third]) ledger.abandon(one, gone);
    let settled = false;
    const all = ledger.orphansSettled as Promise<void> | undefined;
    const over = all?.then(() => {
      settled = true;
    });
    ledger.answeredMutation(first, REPLY);
    ledger.failed(second, new HoldfastError('EEXIST'), 0);
    await Promise.resolve();
    assert.equal(settled, false);
    ledger.expired();
    await over;
    assert.equal(ledger.orphansSettled, undefined);
  });

  it('backs off from 20 ms, doubling to 500 ms', () => {
    const ledger = new RequestLedger(Infinity);
    add(ledger, 1);
    let now = 0;
    const waits: number[] = [];
    for (let attempt = 0; attempt < 7; attempt++) {
      const [mutation] = sendAll(ledger, now);
      ledger.failed(mutation as PendingMutation, UNAVAILABLE, now);
      const wake = ledger.nextWakeAt() as number;
      waits.push(wake - now);
      assert.equal(ledger.next(wake - 1), undefined);
      now = wake;
    }
    assert.deepEqual(waits, [20, 40, 80, 160, 320, 500, 500]);
  });

  it('holds further mutations back while too many are unanswered; reads pass them', () => {
    const ledger = new RequestLedger(Infinity);
    add(ledger, MUTATIONS_IN_FLIGHT_MAX + 1);
    const sent = sendAll(ledger);
    assert.equal(sent.length, MUTATIONS_IN_FLIGHT_MAX);
    ledger.addRead(READ, 0);
    assert.equal(ledger.next(0)?.kind, 'read');
    ledger.answeredMutation(sent[5] as PendingMutation, REPLY);
    assert.deepEqual(seqs(sendAll(ledger)), [MUTATIONS_IN_FLIGHT_MAX + 1]);
  });

  it('never acknowledges a number that it may still repeat (property)', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constantFrom('answer', 'fail', 'refuse', 'abandon' as const), pick: fc.nat() }),
      fc.record({ kind: fc.constantFrom('add', 'send', 'disconnect' as const), pick: fc.nat(3) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const ledger = new RequestLedger(Infinity);
        const known: PendingMutation[] = [];
        const answered = new Set<number>();
        let flying: PendingMutation[] = [];
        let now = 0;
        for (const { kind, pick } of steps) {
          now += 1_000;
          if (kind === 'add') add(ledger, pick);
          if (kind === 'send') flying.push(...sendAll(ledger, now));
          if (kind === 'disconnect') {
            ledger.disconnected();
            flying = [];
          }
          for (const one of flying) if (!known.includes(one)) known.push(one);
          const one = flying[pick % Math.max(1, flying.length)];
          if (!one || kind === 'add' || kind === 'send' || kind === 'disconnect') continue;
          if (kind === 'abandon') {
            ledger.abandon(one, new HoldfastError('EINTR'));
            continue;
          }
          flying.splice(flying.indexOf(one), 1);
          if (kind === 'fail') ledger.failed(one, UNAVAILABLE, now);
          else answered.add(one.seq);
          if (kind === 'answer') ledger.answeredMutation(one, REPLY);
          if (kind === 'refuse') ledger.failed(one, new HoldfastError('EEXIST'), now);
          const unanswered = known.map(({ seq }) => seq).filter((seq) => !answered.has(seq));
          assert.equal(ledger.ackedBelow, Math.min(known.length + 1, ...unanswered));
        }
        assert.deepEqual(
          seqs(known),
          known.map((_, index) => index + 1),
          'numbers rise by one as they are sent',
        );
        ledger.disconnected();
        const left = sendAll(ledger, now).filter(({ attempts }) => attempts > 1);
        assert.ok(
          left.every(({ seq }) => !answered.has(seq)),
          'what was answered is not repeated',
        );
        assert.equal(left.length, known.length - answered.size, 'everything else is');
      }),
      { numRuns: 200, seed: 3 },
    );
  });
});
