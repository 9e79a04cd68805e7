import { S_IFLNK, S_IFMT } from '../../proto/types.js';
import { encodeInode } from '../namespace/inode-codec.js';
import {
  firstNumberOf,
  inodeKey,
  nameOfKey,
  parseReclaimKey,
  readU64,
  secondNumberOf,
  tableRange,
  uuidKey,
  writeU64,
  xattrRange,
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
  await checkAttributes(view, pace, findings, stray);
  await scan(view, tableRange('P'), pace, (key, value) => {
    const { ino, truncateSeq } = parseReclaimKey(key);
    const inode = readable(view, ino);
    // Without an inode it is data that nothing reached: the record goes when the data has gone.
    if (!inode || inode.truncates.some(({ seq }) => seq === truncateSeq)) return;
    if (truncateSeq !== 0) stray(`truncate ${truncateSeq}`, ino, key, value);
    else if (inode.nlink > 0) {
      const text = `inode ${ino} is about to be deleted although it has a name`;
      findings.add({ kind: 'inode', ino, text, repair: change(key, value, undefined) });
    }
  });
}

/** Attributes of inodes that count none, and of none at all. */
async function checkAttributes(
  view: KvReader,
  pace: Pace,
  findings: Findings,
  stray: (what: string, ino: number, key: Buffer, value: Buffer) => void,
): Promise<void> {
  let last = 0;
  await scan(view, tableRange('X'), pace, (key, value) => {
    const ino = firstNumberOf(key);
    const record = view.get(inodeKey(ino));
    if (!record) stray('attribute', ino, key, value);
    const inode = readable(view, ino);
    if (!record || !inode || inode.xattrBytes > 0 || ino === last) return;
    last = ino;
    const { start, end } = xattrRange(ino);
    let xattrBytes = 0;
    for (const each of view.range(start, end)) xattrBytes += nameOfKey(each.key).length + 1;
    const right = { ...inode, xattrBytes, change: inode.change + 1 };
    const text = `inode ${ino} counts no attribute names for ${xattrBytes} bytes of them`;
    findings.add({ kind: 'inode', ino, text, repair: change(inodeKey(ino), record, encodeInode(right)) });
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
