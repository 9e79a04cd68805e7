import assert from 'node:assert/strict';
import { AttrOrder, DIRECTORIES_MAX } from '../../../../client/fuse/kernel/attr-order.js';
import { Call } from '../../../../client/fuse/kernel/call.js';
import { Opcode } from '../../../../client/fuse/kernel/protocol.js';
import { S_IFDIR, S_IFREG } from '../../../../proto/types.js';

const [DIR, OTHER_DIR, FILE] = [10, 11, 12];
const [ONE, TWO] = [501, 502];

describe('the order of attributes in the kernel', () => {
  let expired: number[];
  let order: AttrOrder;

  function answer(opcode: number, ino: number, pid: number, result?: unknown, newParent?: number): void {
    const call = new Call({ opcode, ino, pid, uid: 0, gid: 0, unique: 1, length: 40 });
    call.newParent = newParent;
    order.answering(call, result);
  }
  const getattr = (ino: number, pid: number, mode = S_IFDIR): void =>
    answer(Opcode.GETATTR, ino, pid, { attr: { ino, mode } });
  const unlink = (ino: number, pid: number): void => answer(Opcode.UNLINK, ino, pid);
  const make = (ino: number, pid: number): void =>
    answer(Opcode.MKDIR, 1, pid, { attr: { ino, mode: S_IFDIR } });

  beforeEach(() => {
    expired = [];
    order = new AttrOrder((directory) => expired.push(directory));
    make(DIR, ONE);
    make(OTHER_DIR, ONE);
    expired.length = 0;
  });

  it('has what another thread was told of a directory ignored, once, when its names change', () => {
    getattr(DIR, TWO);
    unlink(DIR, ONE);
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR]);
    getattr(DIR, TWO);
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR, DIR]);
  });

  it('leaves alone what the thread itself was told, and what is told of files', () => {
    getattr(DIR, ONE);
    answer(Opcode.LOOKUP, DIR, TWO, { attr: { ino: FILE, mode: S_IFREG } });
    unlink(DIR, ONE);
    assert.deepEqual(expired, []);
  });

  it('remembers that several were told', () => {
    getattr(DIR, TWO);
    getattr(DIR, ONE);
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR]);
  });

  it('counts a name that was looked up, and a listing of whatever directory', () => {
    answer(Opcode.LOOKUP, 1, TWO, { attr: { ino: DIR, mode: S_IFDIR } });
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR]);
    answer(Opcode.READDIRPLUS, 1, TWO, []);
    unlink(DIR, ONE);
    unlink(OTHER_DIR, ONE);
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR, DIR, OTHER_DIR]);
  });

  it('takes a listing of the thread itself for none, unless somebody else listed before', () => {
    answer(Opcode.READDIRPLUS, 1, ONE, []);
    unlink(DIR, ONE);
    assert.deepEqual(expired, []);
    answer(Opcode.READDIRPLUS, 1, TWO, []);
    answer(Opcode.READDIRPLUS, 1, ONE, []);
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR]);
  });

  it('sees to both directories of a rename', () => {
    getattr(OTHER_DIR, TWO);
    answer(Opcode.RENAME2, DIR, ONE, undefined, OTHER_DIR);
    assert.deepEqual(expired, [OTHER_DIR]);
  });

  it('takes threads that it cannot tell apart for several', () => {
    getattr(DIR, 0);
    unlink(DIR, 0);
    assert.deepEqual(expired, [DIR]);
  });

  it('is careful where it knows nothing, or has forgotten it', () => {
    unlink(77, ONE);
    assert.deepEqual(expired, [77]);
    getattr(78, ONE);
    unlink(78, ONE);
    assert.deepEqual(expired, [77, 78], 'who else was told of it before is not known');
    for (let i = 0; i < DIRECTORIES_MAX; i++) make(1000 + i, ONE);
    expired.length = 0;
    unlink(DIR, ONE);
    assert.deepEqual(expired, [DIR]);
  });
});
