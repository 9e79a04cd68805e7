import assert from 'node:assert/strict';
import { unpack } from '../../../client/meta/packed-page.js';
import type { Timespec } from '../../../common/clock.js';
import {
  IDLE_OWNER_WAIT_MS,
  LeaseGate,
  OWNED_IDLE_MS,
  SOLE_WAIT_MS,
} from '../../../metaserver/service/lease-gate.js';
import type { MetaState, SessionRecord } from '../../../metaserver/service/ports.js';
import { DirRowsWriter } from '../../../proto/dir-rows.js';
import { type Attr, type Lease, LeaseMode, type ReadReply } from '../../../proto/gen/meta.js';
import { SESSION_TIMES } from '../../../proto/types.js';
import { ManualClock } from '../../client/support/manual-clock.js';

const { LEASE_SHARED: SHARED, LEASE_EXCLUSIVE: EXCLUSIVE } = LeaseMode;
const [DIR, OWNED, SHARED_FILE, FREE, OPEN] = [1, 2, 3, 4, 5];
const [ONE, TWO] = [1, 2];

const clock = new ManualClock();
/** When the files of the listing were last changed. */
let changed = clock.wall();

/** A listing of four files: one owned by session ONE, one shared with it, one that nobody has, one that ONE has open. */
function listing(): ReadReply {
  const attr = (ino: number): Attr => ({ ino, ctime: changed }) as Attr;
  const entries = [OWNED, SHARED_FILE, FREE, OPEN].map((ino) => ({
    name: Buffer.from(`f${ino}`),
    ino,
    type: 8,
    cookie: ino,
    attr: attr(ino),
  }));
  return {
    result: { $case: 'dir', value: { entries, end: true, parent: DIR, attr: attr(DIR) } },
    leases: [],
  };
}

/** So long ago that who owns a file does not work on it. */
function before(): Timespec {
  return { ...clock.wall(), sec: clock.wall().sec - OWNED_IDLE_MS / 1000 - 1 };
}

/** The same as rows. */
function packedListing(): ReadReply {
  const reply = listing();
  assert.ok(reply.result?.$case === 'dir');
  const page = reply.result.value;
  const writer = new DirRowsWriter(1);
  for (const [row, { name, ino, type, cookie, attr }] of page.entries.entries()) {
    writer.add(ino, type, cookie, name, 0);
    writer.setAttr(row, attr as Attr, false);
  }
  page.packed = { rows: writer.finish(), others: [] };
  page.entries = [];
  return reply;
}

/** As the client reads it. */
function unpacked(reply: ReadReply | undefined): ReadReply | undefined {
  if (reply?.result?.$case === 'dir') reply.leases.push(...unpack(reply.result.value));
  return reply;
}

for (const [form, answer] of [
  ['messages', listing],
  ['rows', packedListing],
] as const)
  describe(`a listing of ${form} that asks for exclusive leases`, () => {
    const recalls: Lease[] = [];
    let gate: LeaseGate;

    beforeEach(() => {
      recalls.splice(0);
      changed = clock.wall();
      gate = new LeaseGate({
        state: {} as MetaState,
        clock,
        times: SESSION_TIMES,
        isOpenElsewhere: (session, ino) => session === TWO && ino === OPEN,
        isContested: () => false,
        recall: (_session, leases) => recalls.push(...leases),
      });
      const held = [
        { ino: OWNED, mode: EXCLUSIVE, seq: 1 },
        { ino: SHARED_FILE, mode: SHARED, seq: 2 },
      ];
      announce(ONE, held);
      announce(TWO, []);
    });

    function announce(id: number, leases: Lease[]): void {
      gate.beginAnnouncement({ id, wantsLeases: true } as SessionRecord);
      gate.announce(id, leases, true);
      gate.endAnnouncement(id);
    }

    function read(want: LeaseMode | undefined): ReadReply | undefined {
      const value = { ino: DIR, cookie: 0, maxEntries: 10, plus: true, want };
      return unpacked(gate.read(TWO, { $case: 'readDir', value }, answer, () => undefined));
    }

    it('gets them where nobody else has a lease or the file open, and what others own without attributes', () => {
      const reply = read(EXCLUSIVE);
      assert.deepEqual(
        reply?.leases.map(({ ino, mode }) => [ino, mode]),
        [
          [DIR, EXCLUSIVE],
          [SHARED_FILE, SHARED],
          [FREE, EXCLUSIVE],
          [OPEN, SHARED],
        ],
      );
      assert.ok(reply?.result?.$case === 'dir');
      const bare = reply.result.value.entries.filter(({ attr }) => !attr).map(({ ino }) => ino);
      assert.deepEqual(bare, [OWNED]);
      assert.deepEqual(recalls, [], 'nobody is made to flush');
    });

    it('takes the directory from those who believe its listing', () => {
      announce(3, [{ ino: DIR, mode: SHARED, seq: 3 }]);
      assert.equal(read(EXCLUSIVE), undefined, 'it waits');
      assert.deepEqual(recalls, [{ ino: DIR, mode: LeaseMode.LEASE_NONE, seq: 3 }]);
    });

    it('differs from a plain one, which waits for the attributes of every entry', () => {
      assert.equal(read(undefined), undefined);
      assert.deepEqual(recalls, [{ ino: OWNED, mode: SHARED, seq: 1 }]);
    });
  });

describe('a listing of files that another mount owns and has left alone for a while', () => {
  const recalled: Lease[][] = [];
  let gate: LeaseGate;
  let owned: Lease[];
  let again = 0;
  const open = new Set<number>();

  beforeEach(() => {
    recalled.splice(0);
    again = 0;
    open.clear();
    changed = before();
    gate = new LeaseGate({
      state: {} as MetaState,
      clock,
      times: SESSION_TIMES,
      isOpenElsewhere: (_session, ino) => open.has(ino),
      isContested: () => false,
      recall: (_session, leases) => recalled.push(leases),
    });
    owned = [OWNED, FREE, OPEN].map((ino, at) => ({ ino, mode: EXCLUSIVE, seq: at + 1 }));
    for (const [id, leases] of [
      [ONE, owned],
      [TWO, []],
    ] as const) {
      gate.beginAnnouncement({ id, wantsLeases: true } as SessionRecord);
      gate.announce(id, leases, true);
      gate.endAnnouncement(id);
    }
  });

  const value = { ino: DIR, cookie: 0, maxEntries: 10, plus: true, want: SHARED };
  const op = { $case: 'readDir' as const, value };
  const read = (): ReadReply | undefined =>
    unpacked(
      gate.read(TWO, op, packedListing, () => {
        again++;
      }),
    );
  const withAttr = (reply: ReadReply | undefined): number[] => {
    assert.ok(reply?.result?.$case === 'dir');
    return reply.result.value.entries.filter(({ attr }) => attr).map(({ ino }) => ino);
  };

  it('asks for all of them in one message, and tells of all when they have come back', () => {
    assert.equal(read(), undefined, 'it waits');
    assert.deepEqual(recalled, [owned.map((lease) => ({ ...lease, mode: SHARED }))]);
    gate.returned(
      ONE,
      owned.slice(1).map((lease) => ({ ...lease, mode: SHARED })),
    );
    assert.equal(again, 0);
    gate.returned(
      ONE,
      owned.slice(0, 1).map((lease) => ({ ...lease, mode: SHARED })),
    );
    assert.equal(again, 1);
    const reply = read();
    assert.deepEqual(withAttr(reply), [OWNED, SHARED_FILE, FREE, OPEN]);
    assert.deepEqual(
      reply?.leases.map(({ mode }) => mode),
      [SHARED, SHARED, SHARED, SHARED, SHARED],
    );
  });

  it('waits a moment for whoever owns them, and once', async () => {
    assert.equal(read(), undefined);
    await clock.advance(IDLE_OWNER_WAIT_MS - 1);
    assert.equal(again, 0);
    await clock.advance(1);
    assert.equal(again, 1);
    assert.deepEqual(withAttr(read()), [SHARED_FILE]);
    gate.returned(
      ONE,
      owned.map((lease) => ({ ...lease, mode: SHARED })),
    );
    assert.equal(again, 1);
  });

  describe('that wants them alone', () => {
    const sole = { $case: 'readDir' as const, value: { ...value, want: EXCLUSIVE, sole: true } };
    const readSole = (): ReadReply | undefined =>
      unpacked(
        gate.read(TWO, sole, packedListing, () => {
          again++;
        }),
      );

    it('asks for all leases on them, those that are shared, too', () => {
      gate.announce(ONE, [{ ino: SHARED_FILE, mode: SHARED, seq: 9 }], true);
      assert.equal(readSole(), undefined, 'it waits');
      const asked = recalled.flat();
      assert.deepEqual(asked.map(({ ino }) => ino).sort(), [OWNED, SHARED_FILE, FREE, OPEN]);
      assert.ok(asked.every(({ mode }) => mode === LeaseMode.LEASE_NONE));
      gate.returned(ONE, asked);
      assert.equal(again, 1);
      assert.deepEqual(
        readSole()?.leases.map(({ mode }) => mode),
        [EXCLUSIVE, EXCLUSIVE, EXCLUSIVE, EXCLUSIVE, EXCLUSIVE],
      );
    });

    it('waits a while for them, and once, and goes on with what it was given', async () => {
      assert.equal(readSole(), undefined);
      await clock.advance(SOLE_WAIT_MS);
      assert.equal(again, 1);
      assert.deepEqual(withAttr(readSole()), [SHARED_FILE]);
    });

    it('leaves open files to whoever has them open', () => {
      open.add(FREE);
      assert.equal(readSole(), undefined);
      assert.deepEqual(
        recalled.flat().map(({ ino }) => ino),
        [OWNED, OPEN],
      );
    });
  });

  it('is not waited for when the leadership is over', async () => {
    assert.equal(read(), undefined);
    gate.end();
    await clock.advance(IDLE_OWNER_WAIT_MS);
    assert.equal(again, 0);
  });
});
