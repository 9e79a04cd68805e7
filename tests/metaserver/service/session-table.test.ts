import assert from 'node:assert/strict';
import { SessionTable } from '../../../metaserver/service/session-table.js';

function record(id: number) {
  return { id, clientUuid: `u${id}`, hostname: 'h', mountPoint: '/m', place: '', wantsLeases: false };
}

function table(...ids: number[]) {
  const released: number[][] = [];
  const sessions = new SessionTable<string>((inos) => released.push([...inos]));
  sessions.reset(ids.map(record), 1000);
  const get = (id: number) => {
    const entry = sessions.get(id);
    assert.ok(entry);
    return entry;
  };
  return { sessions, released, get };
}

describe('session table', () => {
  it('counts an inode as open until its last opener closes it, and then tells', () => {
    const { sessions, released, get } = table(1, 2);
    assert.ok(sessions.open(get(1), 7) && sessions.open(get(1), 7) && sessions.open(get(2), 7));
    sessions.close(get(1), [7, 8]);
    assert.equal(sessions.isOpen(7), true);
    sessions.close(get(2), [7]);
    assert.equal(sessions.isOpen(7), false);
    assert.deepEqual(released, [[7]]);
  });

  it('is announced only when every session has said what it holds open, or is gone', () => {
    const { sessions, released, get } = table(1, 2);
    assert.equal(sessions.allAnnounced, false);
    sessions.announce(get(1), [5]);
    assert.equal(sessions.allAnnounced, false);
    sessions.remove(2);
    assert.equal(sessions.allAnnounced, true);
    assert.deepEqual(released, [[]]);
    assert.equal(sessions.size, 1);
  });

  it('takes an announcement as the whole truth', () => {
    const { sessions, released, get } = table(1);
    sessions.announce(get(1), [5, 6]);
    sessions.announce(get(1), [6, 7]);
    assert.deepEqual([...get(1).open], [6, 7]);
    assert.deepEqual(released, [[], [5]]);
  });

  it('releases what a session held when it is removed', () => {
    const { sessions, released, get } = table(1);
    sessions.announce(get(1), [5, 6]);
    sessions.remove(1);
    assert.deepEqual(released.at(-1), [5, 6]);
    assert.equal(sessions.isOpen(5), false);
    assert.equal(sessions.remove(1), undefined);
  });

  it('finds the silent, and forgives what this process did not hear while it was paused', () => {
    const { sessions, get } = table(1, 2);
    get(2).heardAt = 1500;
    assert.deepEqual(
      sessions.silent(2001, 1000).map((entry) => entry.record.id),
      [1],
    );
    sessions.forgive(100);
    assert.deepEqual(sessions.silent(2001, 1000), []);
  });

  it('gives every session of the state machine a full time-out under a new leader', () => {
    const { sessions, get } = table(1);
    sessions.reset([record(1), record(3)], 9000);
    assert.deepEqual([get(1).heardAt, get(3).heardAt, sessions.allAnnounced], [9000, 9000, false]);
  });
});
