import assert from 'node:assert/strict';
import { judge, type Observation } from './consistency.js';

const write = (value: number, began: number, ended: number): Observation[] => [
  { kind: 'write-began', register: 0, value, began },
  { kind: 'write', register: 0, value, began, ended },
];
const read = (value: number, began: number, ended: number, torn = false): Observation => ({
  kind: 'read',
  register: 0,
  value,
  torn,
  began,
  ended,
});
const claim = (client: string, name: number, won: boolean): Observation => ({
  kind: 'claim',
  client,
  name,
  won,
  began: 0,
  ended: 1,
});

describe('the judge of what two clients see', () => {
  it('accepts reads of what was acknowledged or is being written', () => {
    const seen = [
      ...write(8, 0, 10),
      ...write(16, 20, 30),
      read(8, 11, 12),
      read(8, 21, 22),
      read(16, 21, 22),
    ];
    assert.deepEqual(judge(seen), { offences: [], reads: 3, writes: 2, claims: 0 });
  });

  it('finds a read of what an acknowledged write had replaced', () => {
    const { offences } = judge([...write(8, 0, 10), ...write(16, 20, 30), read(8, 31, 32)]);
    assert.deepEqual(offences, ['register 0: read 8 after 16 was acknowledged']);
  });

  it('finds a value that nobody had written yet', () => {
    const { offences } = judge([...write(8, 0, 10), ...write(16, 20, 30), read(16, 11, 12)]);
    assert.deepEqual(offences, ['register 0: read 16, begun were 8']);
  });

  it('finds torn content', () => {
    assert.deepEqual(judge([...write(8, 0, 10), read(8, 11, 12, true)]).offences, [
      'register 0: torn content at 11',
    ]);
  });

  it('finds a name with two winners, and one that was refused to everybody', () => {
    const { offences, claims } = judge([
      ...[claim('a', 1, true), claim('b', 1, false)],
      ...[claim('a', 2, true), claim('b', 2, true)],
      ...[claim('a', 3, false), claim('b', 3, false)],
      claim('a', 4, false),
    ]);
    assert.deepEqual(offences, ['name 2: won by a and b', 'name 3: refused to everybody']);
    assert.equal(claims, 7);
  });

  it('tells of failed operations', () => {
    assert.deepEqual(judge([{ kind: 'error', message: 'EIO: i/o error, fsync' }]).offences, [
      'EIO: i/o error, fsync',
    ]);
  });
});
