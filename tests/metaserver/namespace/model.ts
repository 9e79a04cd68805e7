import type { ErrorName } from '../../../proto/errors.js';
import {
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISVTX,
} from '../../../proto/types.js';
import type { Op } from './harness.js';

/** A deliberately naive file tree: objects that point at one another, and link counts found by counting. */
export interface ModelNode {
  ino: number;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  allocated: number;
  truncateSeq: number;
  xattrs: Map<string, string>;
  immutable: boolean;
  appendOnly: boolean;
  /** Directories: by whatever is made in it, too. */
  noAtime: boolean;
  /** Directories: names in the order in which they came. */
  children: Map<string, ModelNode> | undefined;
}

class Refused extends Error {
  constructor(readonly error: ErrorName) {
    super(error);
  }
}

const isDots = (name: string): boolean => name === '.' || name === '..';
const typeOf = (node: ModelNode): number => node.mode & S_IFMT;

export class Model {
  /** Every inode that was ever made, by number; those without a name too. */
  readonly nodes = new Map<number, ModelNode>();
  private nextIno = 2;

  constructor() {
    this.nodes.set(1, { ...this.node(S_IFDIR | 0o755, 0, 0), ino: 1 });
    this.nextIno = 2;
  }

  /** Highest inode number that was given. */
  get lastIno(): number {
    return this.nextIno - 1;
  }

  /** The error, or undefined; a refused operation changes nothing. */
  run(op: Op): ErrorName | undefined {
    try {
      this.apply(op);
      return undefined;
    } catch (error) {
      if (error instanceof Refused) return error.error;
      throw error;
    }
  }

  nlink(node: ModelNode): number {
    let names = 0;
    let subdirectories = 0;
    for (const other of this.nodes.values()) {
      for (const child of other.children?.values() ?? []) if (child === node) names++;
    }
    for (const child of node.children?.values() ?? []) if (child.children) subdirectories++;
    return node.children ? 2 + subdirectories : names;
  }

  /** The directory that holds `node`; the root is its own. */
  parentOf(node: ModelNode): ModelNode {
    for (const other of this.nodes.values()) {
      for (const child of other.children?.values() ?? []) if (child === node) return other;
    }
    return node;
  }

  private apply(op: Op): void {
    switch (op.$case) {
      case 'makeNode':
        this.makeNode(op.value);
        break;
      case 'link':
        this.link(op.value);
        break;
      case 'unlink':
      case 'rmdir':
        this.remove(op.$case === 'rmdir', op.value);
        break;
      case 'rename':
        this.rename(op.value);
        break;
      case 'setAttr':
        this.setAttr(op.value);
        break;
      case 'commitWrite':
        this.commitWrite(op.value);
        break;
      case 'setXattr':
        this.setXattr(op.value);
        break;
      case 'removeXattr':
        checkFree(this.find(op.value.ino));
        check(this.find(op.value.ino).xattrs.delete(String(op.value.name)), 'ENODATA');
        break;
      case 'setFlags':
        this.setFlags(op.value);
        break;
      default:
        throw new Error(`the model does not know ${op.$case}`);
    }
  }

  private node(mode: number, uid: number, gid: number): ModelNode {
    const base = {
      ino: this.nextIno++,
      mode,
      uid,
      gid,
      size: 0,
      allocated: 0,
      truncateSeq: 0,
      xattrs: new Map(),
      immutable: false,
      appendOnly: false,
      noAtime: false,
    };
    return { ...base, children: (mode & S_IFMT) === S_IFDIR ? new Map() : undefined };
  }

  private find(ino: number): ModelNode {
    const node = this.nodes.get(ino);
    if (!node) throw new Refused('ENOENT');
    return node;
  }

  private directory(ino: number): ModelNode & { children: Map<string, ModelNode> } {
    const node = this.find(ino);
    if (!node.children) throw new Refused('ENOTDIR');
    return node as ModelNode & { children: Map<string, ModelNode> };
  }

  private makeNode(op: Extract<Op, { $case: 'makeNode' }>['value']): void {
    const parent = this.directory(op.parent);
    const name = String(op.name);
    if (isDots(name)) throw new Refused(op.existingOk ? 'EISDIR' : 'EEXIST');
    const type = op.mode & S_IFMT;
    const existing = parent.children.get(name);
    if (existing) {
      if (op.existingOk && existing.children) throw new Refused('EISDIR');
      check(op.existingOk && type === S_IFREG && typeOf(existing) === S_IFREG, 'EEXIST');
      return;
    }
    check(!parent.immutable, 'EPERM');
    const inherits = (parent.mode & S_ISGID) !== 0;
    let mode = type === S_IFLNK ? S_IFLNK | 0o777 : op.mode;
    if (inherits && type === S_IFDIR) mode |= S_ISGID;
    const node = this.node(mode, op.uid, inherits ? parent.gid : op.gid);
    if (type === S_IFLNK) node.size = op.target.length;
    node.noAtime = parent.noAtime;
    this.nodes.set(node.ino, node);
    parent.children.set(name, node);
  }

  private link(op: Extract<Op, { $case: 'link' }>['value']): void {
    const node = this.find(op.ino);
    const parent = this.directory(op.parent);
    const name = String(op.name);
    check(!isDots(name) && !parent.children.has(name), 'EEXIST');
    check(!parent.immutable, 'EPERM');
    checkFree(node);
    check(!node.children, 'EPERM');
    check(this.nlink(node) > 0, 'ENOENT');
    parent.children.set(name, node);
  }

  private remove(rmdir: boolean, op: Extract<Op, { $case: 'unlink' }>['value']): void {
    const parent = this.directory(op.parent);
    const name = String(op.name);
    if (isDots(name)) throw new Refused(!rmdir ? 'EISDIR' : name === '.' ? 'EINVAL' : 'ENOTEMPTY');
    const node = parent.children.get(name);
    if (!node) throw new Refused('ENOENT');
    checkFree(parent, node);
    checkSticky(parent, node, op.uid);
    if (rmdir) {
      check(node.children, 'ENOTDIR');
      check(node.children.size === 0, 'ENOTEMPTY');
    } else check(!node.children, 'EISDIR');
    parent.children.delete(name);
    this.sweep(node);
  }

  private rename(op: Extract<Op, { $case: 'rename' }>['value']): void {
    const exchange = op.flags === RENAME_EXCHANGE;
    check(op.flags === 0 || exchange || op.flags === RENAME_NOREPLACE, 'EINVAL');
    const from = this.directory(op.parent);
    const to = this.directory(op.newParent);
    const [name, newName] = [String(op.name), String(op.newName)];
    check(!isDots(name) && !isDots(newName), 'EBUSY');
    const source = from.children.get(name);
    const target = to.children.get(newName);
    if (!source) throw new Refused('ENOENT');
    if (target) check(op.flags !== RENAME_NOREPLACE, 'EEXIST');
    else check(!exchange, 'ENOENT');
    check(from === to || !this.holds(source, to), 'EINVAL');
    if (target && from !== to && this.holds(target, from))
      throw new Refused(exchange ? 'EINVAL' : 'ENOTEMPTY');
    if (source === target) return;
    checkFree(from, source);
    if (target) checkFree(to, target);
    else check(!to.immutable, 'EPERM');
    checkSticky(from, source, op.uid);
    if (target) checkSticky(to, target, op.uid);
    if (exchange && target) {
      from.children.set(name, target);
      to.children.set(newName, source);
      return;
    }
    if (target) {
      if (source.children) check(target.children, 'ENOTDIR');
      else check(!target.children, 'EISDIR');
      check(!target.children || target.children.size === 0, 'ENOTEMPTY');
    }
    if (from === to) renameKey(from.children, name, newName);
    else {
      from.children.delete(name);
      to.children.delete(newName);
      to.children.set(newName, source);
    }
    if (target) this.sweep(target);
  }

  private setAttr(op: Extract<Op, { $case: 'setAttr' }>['value']): void {
    const node = this.find(op.ino);
    check(op.mode === undefined || typeOf(node) !== S_IFLNK, 'EOPNOTSUPP');
    if (op.size !== undefined) {
      check(!node.children, 'EISDIR');
      check(typeOf(node) === S_IFREG, 'EINVAL');
    }
    checkFree(node);
    if (op.size !== undefined) {
      if (op.size < node.size) {
        node.truncateSeq++;
        node.allocated = Math.min(node.allocated, op.size + ((4096 - (op.size % 4096)) % 4096));
      }
      node.size = op.size;
    }
    if (op.mode !== undefined) node.mode = typeOf(node) | (op.mode & 0o7777);
  }

  private commitWrite(op: Extract<Op, { $case: 'commitWrite' }>['value']): void {
    const node = this.find(op.ino);
    check(!node.children, 'EISDIR');
    check(typeOf(node) === S_IFREG, 'EINVAL');
    check(op.truncateSeq <= node.truncateSeq, 'EINVAL');
    if (op.truncateSeq === node.truncateSeq) node.size = Math.max(node.size, op.newSize);
    node.allocated = Math.max(0, node.allocated + op.allocatedDelta);
  }

  private setXattr(op: Extract<Op, { $case: 'setXattr' }>['value']): void {
    const name = String(op.name);
    check(name.includes('.'), 'EOPNOTSUPP');
    const node = this.find(op.ino);
    checkFree(node);
    check(!name.startsWith('user.') || node.children || typeOf(node) === S_IFREG, 'EPERM');
    if (node.xattrs.has(name)) check(!(op.flags & 1), 'EEXIST');
    else check(!(op.flags & 2), 'ENODATA');
    node.xattrs.set(name, String(op.value));
  }

  private setFlags(op: Extract<Op, { $case: 'setFlags' }>['value']): void {
    const node = this.find(op.ino);
    check(op.uid === 0 || op.uid === node.uid, 'EPERM');
    const [immutable, appendOnly, noAtime] = [0x10, 0x20, 0x80].map((bit) => (op.flags & bit) !== 0);
    const guardsChange = immutable !== node.immutable || appendOnly !== node.appendOnly;
    check(op.uid === 0 || !guardsChange, 'EPERM');
    check((op.flags & 0x8) === 0 && (node.children || typeOf(node) === S_IFREG), 'EOPNOTSUPP');
    if (node.immutable && immutable) check(!guardsChange && noAtime === node.noAtime, 'EPERM');
    Object.assign(node, { immutable, appendOnly, noAtime });
  }

  /** Whether `inner` is `outer` or somewhere beneath it. */
  private holds(outer: ModelNode, inner: ModelNode): boolean {
    if (outer === inner) return true;
    return [...(outer.children?.values() ?? [])].some((child) => this.holds(child, inner));
  }

  /** Forgets a node that lost its last name, unless it is a regular file, which stays as an orphan. */
  private sweep(node: ModelNode): void {
    if (typeOf(node) === S_IFREG) return;
    if (node.children || this.nlink(node) === 0) this.nodes.delete(node.ino);
  }
}

function check(condition: unknown, error: ErrorName): asserts condition {
  if (!condition) throw new Refused(error);
}

function checkFree(...nodes: ModelNode[]): void {
  for (const { immutable, appendOnly } of nodes) check(!immutable && !appendOnly, 'EPERM');
}

function checkSticky(directory: ModelNode, victim: ModelNode, uid: number): void {
  if (directory.mode & S_ISVTX && uid !== 0) check(uid === directory.uid || uid === victim.uid, 'EPERM');
}

/** Renames an entry at its place; an entry of the new name goes. */
function renameKey(map: Map<string, ModelNode>, from: string, to: string): void {
  const entries = [...map].filter(([name]) => name !== to || from === to);
  map.clear();
  for (const [name, node] of entries) map.set(name === from ? to : name, node);
}
