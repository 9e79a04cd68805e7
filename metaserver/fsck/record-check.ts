import { S_IFLNK, S_IFMT } from '../../proto/types.js';
import {
  firstNumberOf,
  inodeKey,
  parseReclaimKey,
  readU64,
  secondNumberOf,
  tableRange,
  uuidKey,
  writeU64,
} from '../namespace/keys.js';
import { decodeSession, type Session } from '../namespace/records.js';
import type { KvReader } from '../store/kv.js';
import { change, type Findings } from './findings.js';
import { readable } from './name-check.js';
import { type Pace, scan } from './scan.js';

/** What hangs on inodes hangs on one that exists: symlinks' targets, attributes, data to reclaim. */
export async function checkInodeRecords(view: KvReader, pace: Pace, findings: Findings): Promise<void> {
  const stray = (what: string, ino: number, key: Buffer, value: Buffer): void =>
    findings.add({
      kind: 'stray-record',
      ino,
      text: `${what} of inode ${ino}, which has none`,
      repair: change(key, value, undefined),
    });
  await scan(view, tableRange('L'), pace, (key, value) => {
    const ino = firstNumberOf(key);
    const inode = readable(view, ino);
    if (inode ? (inode.mode & S_IFMT) !== S_IFLNK : !view.get(inodeKey(ino)))
      stray('target', ino, key, value);
  });
  await scan(view, tableRange('X'), pace, (key, value) => {
    const ino = firstNumberOf(key);
    if (!view.get(inodeKey(ino))) stray('attribute', ino, key, value);
  });
  await scan(view, tableRange('P'), pace, (key, value) => {
    const { ino, truncateSeq } = parseReclaimKey(key);
    const inode = readable(view, ino);
    // Without an inode it is data that nothing reached: the record goes when the data has gone.
    if (!inode || truncateSeq === 0 || inode.truncates.some(({ seq }) => seq === truncateSeq)) return;
    stray(`truncate ${truncateSeq}`, ino, key, value);
  });
}

/** @returns the highest number of a session */
export async function checkSessions(view: KvReader, pace: Pace, findings: Findings): Promise<number> {
  const sessions = new Map<number, Session>();
  await scan(view, tableRange('Z'), pace, (key, value) => {
    const session = decodeSession(firstNumberOf(key), value);
    sessions.set(session.id, session);
    const known = view.get(uuidKey(session.clientUuid));
    if (known && readU64(known, 0) === session.id) return;
    const right = Buffer.alloc(8);
    writeU64(right, 0, session.id);
    findings.add({
      kind: 'session',
      ino: 0,
      text: `session ${session.id} is not found by its client's uuid`,
      // Two sessions of one client: which of them it uses is not known here.
      repair: known ? undefined : change(uuidKey(session.clientUuid), undefined, right),
    });
  });
  await scan(view, tableRange('U'), pace, (key, value) => {
    if (sessions.has(readU64(value, 0))) return;
    findings.add({
      kind: 'session',
      ino: 0,
      text: `a client's uuid names session ${readU64(value, 0)}, which has ended`,
      repair: change(key, value, undefined),
    });
  });
  await scan(view, tableRange('R'), pace, (key, value) => {
    const session = sessions.get(firstNumberOf(key));
    const seq = secondNumberOf(key);
    if (session && seq >= session.forgottenBelow && seq <= session.maxSeq) return;
    findings.add({
      kind: 'session',
      ino: 0,
      text: `the result of mutation ${seq} of session ${firstNumberOf(key)} is kept for nobody`,
      repair: change(key, value, undefined),
    });
  });
  await scan(view, tableRange('N'), pace, (key, value) => {
    if (sessions.has(firstNumberOf(key))) return;
    findings.add({
      kind: 'session',
      ino: 0,
      text: `inode numbers are reserved for session ${firstNumberOf(key)}, which has ended`,
      repair: change(key, value, undefined),
    });
  });
  let highest = 0;
  for (const id of sessions.keys()) highest = Math.max(highest, id);
  return highest;
}
