import assert from 'node:assert/strict';
import type { Finding } from '../../../metaserver/fsck/findings.js';
import { checkNamespace, type NamespaceReport } from '../../../metaserver/fsck/namespace-check.js';
import { decodeInode, encodeInode, type Inode } from '../../../metaserver/namespace/inode-codec.js';
import {
  COUNTERS_KEY,
  cookieKey,
  dentryKey,
  inodeKey,
  reclaimKey,
  reservedKey,
  resultKey,
  symlinkKey,
  uuidKey,
  writeU64,
  xattrKey,
} from '../../../metaserver/namespace/keys.js';
import {
  decodeCounters,
  decodeDentry,
  encodeCookieEntry,
  encodeCounters,
  encodeDentry,
  encodeReclaim,
} from '../../../metaserver/namespace/records.js';
import { MemoryKv } from '../../../metaserver/store/memory-kv.js';
import { type RepairRecords, SetXattr } from '../../../proto/gen/meta.js';
import { dumpKv, errorOf, Namespace, setAttr } from '../namespace/harness.js';

const b = (text: string): Buffer => Buffer.from(text);
const REPAIR: RepairRecords = {
  expected: [],
  changed: [],
  inodesDelta: 0,
  orphansDelta: 0,
  allocatedDelta: 0,
  nextIno: 0,
  nextCookie: 0,
  nextSession: 0,
};

async function check(ns: Namespace, windowInodes?: number): Promise<NamespaceReport> {
  const view = await ns.kv.view();
  try {
    return await checkNamespace({ view, pace: { pause: async () => {} }, progress: () => {}, windowInodes });
  } finally {
    view.close();
  }
}

/** Repairs what can be. @returns whether every repair was taken */
function repair(ns: Namespace, report: NamespaceReport): boolean {
  const repairs = report.findings.flatMap((finding) => (finding.repair ? [finding.repair] : []));
  const results = repairs.map((records) =>
    ns.command({ $case: 'repairRecords', value: { ...REPAIR, ...records } }),
  );
  if (report.totals) results.push(ns.command({ $case: 'repairRecords', value: report.totals.repair }));
  return results.every((result) => result.error === 0);
}

/** The harness with /d/e, /d/f (two names, attributes), /s -> target, and an orphan with a pending truncate. */
function sample(): Namespace & { d: number; e: number; f: number; s: number; orphan: number } {
  const ns = new Namespace(new MemoryKv());
  const d = ns.mkdir(ns.root, 'd');
  const e = ns.mkdir(d, 'e');
  const f = ns.create(d, 'f');
  const s = ns.symlink(ns.root, 's', 'target');
  ns.ok(ns.link(f, ns.root, 'f2'));
  const xattr = { ...SetXattr.create({}), ino: f, name: b('user.a'), value: b('1') };
  ns.ok({ $case: 'setXattr', value: xattr });
  const orphan = ns.create(ns.root, 'gone');
  ns.ok(setAttr(orphan, { size: 9000 }));
  ns.ok(setAttr(orphan, { size: 10 }));
  ns.ok(ns.unlink(ns.root, 'gone'));
  return Object.assign(ns, { d, e, f, s, orphan });
}

type Sample = ReturnType<typeof sample>;
type Damage = (ns: Sample, put: (key: Buffer, value: Buffer | undefined) => void) => void;

function inode(ns: Sample, ino: number, changes: Partial<Inode>): [Buffer, Buffer] {
  const before = decodeInode(ino, ns.kv.get(inodeKey(ino)) as Buffer);
  return [inodeKey(ino), encodeInode({ ...before, ...changes })];
}

const counters = (ns: Sample) => decodeCounters(ns.kv.get(COUNTERS_KEY) as Buffer);
const entry = (ns: Sample, parent: number, name: string) =>
  decodeDentry(ns.kv.get(dentryKey(parent, b(name))) as Buffer);

/** Each plants one kind of damage; what is found first; and whether it has one right answer. */
const DAMAGES: [string, string, boolean, Damage][] = [
  [
    'a name that leads to no inode',
    'dangling-name',
    true,
    (ns, put) => {
      put(dentryKey(ns.d, b('x')), encodeDentry({ ino: 999, type: 8, cookie: 900 }));
      put(cookieKey(ns.d, 900), encodeCookieEntry(999, 8, b('x')));
    },
  ],
  [
    'a name in a file',
    'stray-name',
    true,
    (ns, put) => put(dentryKey(ns.f, b('x')), encodeDentry({ ino: ns.f, type: 8, cookie: 900 })),
  ],
  [
    'a name with a wrong type',
    'name-type',
    true,
    (ns, put) => put(dentryKey(ns.d, b('f')), encodeDentry({ ...entry(ns, ns.d, 'f'), type: 4 })),
  ],
  [
    'a name that is not listed',
    'listing',
    true,
    (ns, put) => put(cookieKey(ns.d, entry(ns, ns.d, 'f').cookie), undefined),
  ],
  [
    'a listed name that is not there',
    'listing',
    true,
    (ns, put) => put(cookieKey(ns.d, 901), encodeCookieEntry(ns.f, 8, b('ghost'))),
  ],
  ['a wrong link count', 'inode', true, (ns, put) => put(...inode(ns, ns.f, { nlink: 7 }))],
  ['a link count of 0', 'inode', true, (ns, put) => put(...inode(ns, ns.f, { nlink: 0 }))],
  ["a directory's wrong link count", 'inode', true, (ns, put) => put(...inode(ns, ns.d, { nlink: 9 }))],
  ["a directory's wrong size", 'inode', true, (ns, put) => put(...inode(ns, ns.d, { entries: 5 }))],
  ['a wrong ".."', 'inode', true, (ns, put) => put(...inode(ns, ns.e, { parent: 1 }))],
  ['a wrong ".." of the root', 'inode', true, (ns, put) => put(...inode(ns, 1, { parent: ns.d }))],
  [
    'an inode without names',
    'inode',
    false,
    (ns, put) => {
      const { cookie } = entry(ns, ns.d, 'e');
      put(dentryKey(ns.d, b('e')), undefined);
      put(cookieKey(ns.d, cookie), undefined);
    },
  ],
  [
    'directories in a circle',
    'inode',
    false,
    (ns, put) => {
      const { cookie } = entry(ns, ns.root, 'd');
      put(dentryKey(ns.root, b('d')), undefined);
      put(cookieKey(ns.root, cookie), undefined);
      put(dentryKey(ns.e, b('d')), encodeDentry({ ino: ns.d, type: 4, cookie: 902 }));
      put(cookieKey(ns.e, 902), encodeCookieEntry(ns.d, 4, b('d')));
      put(...inode(ns, ns.d, { parent: ns.e }));
    },
  ],
  [
    'an orphan that nobody will reclaim',
    'inode',
    true,
    (ns, put) => put(reclaimKey(ns.orphan, 0), undefined),
  ],
  [
    'a living file that is about to be reclaimed',
    'inode',
    true,
    (ns, put) => put(reclaimKey(ns.f, 0), encodeReclaim({ from: 0, size: 0, chunkSize: 4096 })),
  ],
  ['a truncate that is forgotten', 'inode', true, (ns, put) => put(reclaimKey(ns.orphan, 1), undefined)],
  [
    'a truncate that nobody made',
    'stray-record',
    true,
    (ns, put) => put(reclaimKey(ns.f, 3), encodeReclaim({ from: 0, size: 0, chunkSize: 4096 })),
  ],
  ['a symlink of a wrong length', 'inode', true, (ns, put) => put(...inode(ns, ns.s, { size: 1 }))],
  ['a symlink without a target', 'symlink', false, (ns, put) => put(symlinkKey(ns.s), undefined)],
  ['a target of no symlink', 'stray-record', true, (_, put) => put(symlinkKey(999), b('nowhere'))],
  ['an attribute of no inode', 'stray-record', true, (_, put) => put(xattrKey(999, b('user.x')), b('1'))],
  ['attributes that are not counted', 'inode', true, (ns, put) => put(xattrKey(ns.d, b('user.x')), b('1'))],
  ['an inode that cannot be read', 'inode', false, (ns, put) => put(inodeKey(ns.f), b('\x09nonsense'))],
  ['a uuid of no session', 'session', true, (_, put) => put(uuidKey('ghost'), Buffer.alloc(8, 1))],
  ['a session without its uuid', 'session', true, (_, put) => put(uuidKey('client-1'), undefined)],
  [
    'inode numbers reserved for no session',
    'session',
    true,
    (_, put) => put(reservedKey(77), Buffer.alloc(16)),
  ],
  ['a result of no session', 'session', true, (_, put) => put(resultKey(77, 1), b(''))],
];

/** Puts the damage into the store of a machine that has stopped, and starts another one on it. */
function damaged(plant: Damage): Sample {
  const ns = sample();
  const writes: [Buffer, Buffer | undefined][] = [];
  plant(ns, (key, value) => writes.push([key, value]));
  ns.kv.transaction((txn) => {
    for (const [key, value] of writes) {
      if (value) txn.put(key, value);
      else txn.delete(key);
    }
  });
  return ns;
}

function found(report: NamespaceReport): Finding[] {
  return report.findings;
}

describe('fsck of the namespace', () => {
  it('finds nothing in a sound one, in windows of any size, and reads it all', async () => {
    const ns = sample();
    for (let i = 0; i < 1500; i++) ns.create(ns.d, `file-${i}`);
    for (const windowInodes of [undefined, 600]) {
      const report = await check(ns, windowInodes);
      assert.deepEqual(report.findings, []);
      assert.equal(report.totals, undefined);
      assert.equal(report.count, 0);
      assert.equal(report.inodes, 1506);
      assert.equal(report.names, 1505);
    }
    const small = sample();
    for (const windowInodes of [1, 2, 3, 7]) assert.equal((await check(small, windowInodes)).count, 0);
  });

  for (const [name, kind, repairable, plant] of DAMAGES) {
    it(`finds ${name}${repairable ? ', and repairs it' : ''}`, async () => {
      const ns = damaged(plant);
      const report = await check(ns);
      assert.ok(report.count > 0, 'not found');
      const kinds = found(report).map((finding) => finding.kind);
      if (repairable) {
        assert.ok(kinds.includes(kind), `${kinds}`);
        assert.ok(repair(ns, report), 'a repair was refused');
        const again = await check(ns);
        assert.deepEqual(again.findings, []);
        assert.equal(again.totals, undefined);
      } else {
        assert.ok(
          found(report).some((finding) => finding.repair === undefined),
          `${kinds}`,
        );
        repair(ns, report);
        const again = await check(ns);
        assert.ok(again.count > 0);
        assert.ok(
          again.findings.every((finding) => finding.repair === undefined),
          'everything that has one right answer was repaired',
        );
      }
    });
  }

  it('finds wrong totals, and repairs them', async () => {
    const before = sample();
    const { kv } = before;
    kv.transaction((txn) => {
      const wrong = decodeCounters(txn.get(COUNTERS_KEY) as Buffer);
      txn.put(
        COUNTERS_KEY,
        encodeCounters({ ...wrong, inodes: 99, orphans: 5, allocated: 7, nextIno: 2, nextCookie: 1 }),
      );
    });
    const ns = new Namespace(kv);
    ns.seq = before.seq;
    const report = await check(ns);
    assert.deepEqual(report.findings, []);
    assert.match(
      report.totals?.text ?? '',
      /inodes 99 for 6, orphans 5 for 1, allocated 7 for 0, nextIno 2 although 6/,
    );
    assert.ok(repair(ns, report));
    assert.equal((await check(ns)).count, 0);
    assert.ok(ns.create(ns.root, 'new') > 6);
  });

  it('sees one moment: what happens during the check is no damage', async () => {
    const ns = sample();
    const view = await ns.kv.view();
    let step = 0;
    const pause = async (): Promise<void> => {
      step++;
      ns.create(ns.root, `during-${step}`);
      if (step % 2 === 0) ns.ok(ns.unlink(ns.root, `during-${step - 1}`));
    };
    const report = await checkNamespace({ view, pace: { pause }, progress: () => {}, windowInodes: 2 });
    view.close();
    assert.ok(step > 2);
    assert.equal(report.count, 0);
    assert.equal((await check(ns)).count, 0);
  });

  it('leaves alone what has changed since it was checked', async () => {
    const ns = damaged((each, put) => put(...inode(each, each.f, { nlink: 7 })));
    const report = await check(ns);
    ns.ok(setAttr(ns.f, { mode: 0o600 }));
    const before = dumpKv(ns.kv).filter((line) => !line.startsWith('53636f'));
    const [finding] = report.findings;
    const result = ns.command({
      $case: 'repairRecords',
      value: { ...REPAIR, ...(finding as Finding).repair },
    });
    assert.equal(errorOf(result), 'EAGAIN');
    assert.deepEqual(
      dumpKv(ns.kv).filter((line) => !line.startsWith('53636f')),
      before,
    );
    assert.ok(repair(ns, await check(ns)));
    assert.equal((await check(ns)).count, 0);
  });

  it('never repairs what memory holds too', () => {
    const ns = sample();
    for (const table of ['Scounters', 'Smap', 'Zwhatever', 'Qunknown']) {
      const value = { ...REPAIR, changed: [{ key: b(table), value: b('x') }] };
      assert.equal(errorOf(ns.command({ $case: 'repairRecords', value })), 'EINVAL');
    }
    assert.equal(counters(ns).inodes, 6);
  });

  it('keeps writing to an inode that one batch has changed and repaired', async () => {
    const ns = damaged((each, put) => put(...inode(each, each.f, { nlink: 7 })));
    assert.ok(repair(ns, await check(ns)));
    assert.equal(ns.get(ns.f).nlink, 2);
    ns.ok(ns.unlink(ns.root, 'f2'));
    assert.equal(ns.get(ns.f).nlink, 1);
    const number = Buffer.alloc(8);
    writeU64(number, 0, 1);
    assert.equal(ns.kv.get(uuidKey('client-1'))?.equals(number), true);
  });
});
