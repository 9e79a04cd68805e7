import assert from 'node:assert/strict';
import { ABSENT_NAMES_MAX, NAMES_MAX, NameCache } from '../../../client/leases/name-cache.js';

const KEPT_ENTRIES_MAX = 4_500;
const b = (text: string): Buffer => Buffer.from(text);
const entry = (name: string, ino: number, cookie = 0) => ({ name: b(name), ino, type: 8, cookie });

describe('names of leased directories', () => {
  it('are known, known to be absent, or unknown', () => {
    const names = new NameCache();
    names.put(1, entry('a', 10));
    names.putAbsent(1, b('b'));
    assert.equal((names.lookup(1, b('a')) as { ino: number }).ino, 10);
    assert.equal(names.lookup(1, b('b')), 'absent');
    assert.equal(names.lookup(1, b('c')), undefined);
    names.putAbsent(1, b('a'));
    assert.equal(names.lookup(1, b('a')), 'absent');
    names.drop(1);
    assert.equal(names.lookup(1, b('a')), undefined);
    assert.equal(names.size, 0);
  });

  it('of a directory known as a whole answer for every name, and list in the order of their places', () => {
    const names = new NameCache();
    names.complete(1, 5, [entry('z', 10, 20), entry('a', 11, 30)]);
    assert.equal(names.lookup(1, b('other')), 'absent');
    assert.deepEqual(
      names.listing(1)?.entries.map(({ name }) => name.toString()),
      ['z', 'a'],
    );
    names.put(1, entry('new', 12));
    assert.equal(names.count(1), 3);
    assert.equal(names.listing(1), undefined, 'the place of the new one is not known');
    assert.equal(names.unplacedFrom(1), 30);
    names.put(1, entry('new', 12, 40));
    assert.equal(names.listing(1)?.entries.length, 3);
    names.putAbsent(1, b('z'));
    assert.deepEqual([names.count(1), names.lookup(1, b('z')), names.isComplete(1)], [2, 'absent', true]);
    names.forget(1, b('a'));
    assert.equal(names.isComplete(1), false);
    assert.equal(names.lookup(1, b('a')), undefined);
  });

  it('an entry that was looked up keeps its place', () => {
    const names = new NameCache();
    names.complete(1, 5, [entry('a', 10, 20)]);
    names.put(1, entry('a', 10));
    assert.equal(names.listing(1)?.entries[0]?.cookie, 20);
  });

  it('are bounded: the directory unused longest is forgotten', () => {
    const names = new NameCache();
    names.put(1, entry('a', 10));
    names.put(2, entry('a', 11));
    names.lookup(1, b('a'));
    for (let at = 0; names.size < NAMES_MAX; at++) names.put(3 + (at % 5), entry(`n${at}`, 100 + at));
    names.put(3, entry('one more', 5));
    assert.equal(names.lookup(2, b('a')), undefined);
    assert.notEqual(names.lookup(1, b('a')), undefined);
  });

  it('of one directory are bounded: the oldest one is forgotten', () => {
    const names = new NameCache(KEPT_ENTRIES_MAX);
    for (let at = 0; at <= KEPT_ENTRIES_MAX; at++) names.put(1, entry(`n${at}`, 100 + at));
    assert.equal(names.size, KEPT_ENTRIES_MAX);
    assert.equal(names.lookup(1, b('n0')), undefined);
    assert.equal(names.tellsAbsence(1), false);
  });

  describe('of a directory that has become too large to be known as a whole', () => {
    let names: NameCache;

    beforeEach(() => {
      names = new NameCache(KEPT_ENTRIES_MAX);
      names.complete(1, 5, []);
      for (let at = 0; at < KEPT_ENTRIES_MAX + 1000; at++) names.put(1, entry(`n${at}`, 100 + at));
    });

    it('are known to be absent, or may be there', () => {
      assert.deepEqual([names.isComplete(1), names.tellsAbsence(1)], [false, true]);
      assert.equal(names.lookup(1, b('n5')), undefined, 'it is there, and not remembered');
      assert.equal((names.lookup(1, b('n3000')) as { ino: number }).ino, 3100);
      assert.equal(names.lookup(1, b('another')), 'absent');
      assert.deepEqual([names.count(1), names.listing(1)], [undefined, undefined]);
    });

    it('may be there once they are made, and are absent once they are removed', () => {
      names.put(1, entry('another', 7));
      assert.equal((names.lookup(1, b('another')) as { ino: number }).ino, 7);
      names.putAbsent(1, b('another'));
      assert.equal(names.lookup(1, b('another')), 'absent');
      for (let at = 0; at < ABSENT_NAMES_MAX; at++) names.putAbsent(1, b(`n${at}`));
      assert.equal(names.lookup(1, b('another')), undefined, 'so many removed names are not remembered');
      assert.equal(names.tellsAbsence(1), true);
    });

    it('of which nothing is known are told from those that are absent', () => {
      names.forget(1, b('made, perhaps'));
      assert.equal(names.lookup(1, b('made, perhaps')), undefined);
      assert.equal(names.lookup(1, b('another')), 'absent');
    });

    it('are all forgotten with its lease', () => {
      names.drop(1);
      assert.equal(names.lookup(1, b('another')), undefined);
      assert.equal(names.size, 0);
    });
  });
});
