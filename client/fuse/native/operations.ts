import { isUtf8 } from 'node:buffer';
import type { Logger } from '../../../common/logger.js';
import { HoldfastError } from '../../../proto/errors.js';
import type { Answer } from '../../answer.js';
import type { Caller, DirEntry, FileSystem, SetAttrRequest } from '../binding.js';
import { HandleTable } from './handles.js';
import { nameOf, type PathMap, type PinnedInode, parentOf } from './path-map.js';
import { fromNativeMs, type NativeStat, type NativeStatfs, toNativeStat, toNativeStatfs } from './stat.js';

/** 0 or a negative errno, and a result. */
type Reply<T = void> = (errno: number, result?: T) => void;

/** The methods that fuse-native calls, all by path; a number `fd` is the handle that open answered. */
export interface NativeOperations {
  getattr(path: string, reply: Reply<NativeStat>): void;
  readdir(path: string, reply: (errno: number, names?: string[], stats?: NativeStat[]) => void): void;
  statfs(path: string, reply: Reply<NativeStatfs>): void;
  readlink(path: string, reply: Reply<string>): void;
  mknod(path: string, mode: number, rdev: number, reply: Reply): void;
  mkdir(path: string, mode: number, reply: Reply): void;
  symlink(target: string, path: string, reply: Reply): void;
  link(path: string, newPath: string, reply: Reply): void;
  unlink(path: string, reply: Reply): void;
  rmdir(path: string, reply: Reply): void;
  rename(path: string, newPath: string, reply: Reply): void;
  chmod(path: string, mode: number, reply: Reply): void;
  chown(path: string, uid: number, gid: number, reply: Reply): void;
  truncate(path: string, size: number, reply: Reply): void;
  ftruncate(path: string, fd: number, size: number, reply: Reply): void;
  utimens(path: string, atimeMs: number, mtimeMs: number, reply: Reply): void;
  create(path: string, mode: number, reply: Reply<number>): void;
  open(path: string, flags: number, reply: Reply<number>): void;
  read(path: string, fd: number, into: Buffer, length: number, offset: number, reply: Reply<number>): void;
  write(path: string, fd: number, data: Buffer, length: number, offset: number, reply: Reply<number>): void;
  flush(path: string, fd: number, reply: Reply): void;
  release(path: string, fd: number, reply: Reply): void;
  fsync(path: string, dataOnly: number, fd: number, reply: Reply): void;
  fsyncdir(path: string, dataOnly: number, fd: number, reply: Reply): void;
  setxattr(path: string, name: string, value: Buffer, position: number, flags: number, reply: Reply): void;
  /** `reply` gets the whole value; the caller has to hold it against the room there is. */
  getxattr(path: string, name: string, position: number, reply: Reply<Buffer>): void;
  listxattr(path: string, reply: (errno: number, names?: Buffer[]) => void): void;
  removexattr(path: string, name: string, reply: Reply): void;
}

const O_RDWR_CREAT = 0o102;
/** chown(2)'s "leave it as it is". */
const UNCHANGED = 0xffff_ffff;
const READDIR_BATCH_ENTRIES = 1024;
const EIO = 5;
const EILSEQ = 84;

export interface OperationsContext {
  fs: FileSystem;
  paths: PathMap;
  /** The mounting user stands for every caller. */
  caller: Caller;
  log: Logger;
}

/** A name that was not UTF-8 arrives with this character in the place of its bytes: its file cannot be told. */
const REPLACEMENT = '\ufffd';

class IllegalSequence extends Error {}

function checked(path: string): string {
  if (path.includes(REPLACEMENT)) throw new IllegalSequence();
  return path;
}

/** The operations of a file system, as fuse-native wants them. */
export class Operations {
  readonly handles = new HandleTable();

  constructor(private readonly context: OperationsContext) {}

  /** All operations in the form of callbacks. */
  table(): NativeOperations {
    return { ...this.namespaceTable(), ...this.attributeTable(), ...this.fileTable(), ...this.xattrTable() };
  }

  private namespaceTable() {
    const { fs, caller, paths } = this.context;
    return {
      readdir: (path: string, reply: (errno: number, names?: string[], stats?: NativeStat[]) => void) =>
        this.run(
          (errno, listing) => reply(errno, listing?.names, listing?.stats),
          () => this.list(path),
        ),
      readlink: (path: string, reply: Reply<string>) =>
        this.run(reply, () =>
          this.at(path, async ({ ino }) => {
            const target = await fs.readlink(caller, ino);
            if (!isUtf8(target)) throw new IllegalSequence();
            return target.toString('utf8');
          }),
        ),
      mknod: (path: string, mode: number, rdev: number, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) =>
            paths.adopt(path, await fs.mknod(caller, parent, name, mode, rdev, 0)),
          ),
        ),
      mkdir: (path: string, mode: number, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) =>
            paths.adopt(path, await fs.mkdir(caller, parent, name, mode, 0)),
          ),
        ),
      symlink: (target: string, path: string, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) =>
            paths.adopt(path, await fs.symlink(caller, parent, name, Buffer.from(checked(target)))),
          ),
        ),
      link: (path: string, newPath: string, reply: Reply) =>
        this.run(reply, () =>
          this.at(path, ({ ino }) =>
            this.inParent(newPath, async (parent, name) =>
              paths.adopt(newPath, await fs.link(caller, ino, parent, name)),
            ),
          ),
        ),
      unlink: (path: string, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) => {
            await fs.unlink(caller, parent, name);
            paths.dropLeaf(path);
          }),
        ),
      rmdir: (path: string, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) => {
            await fs.rmdir(caller, parent, name);
            paths.drop(path);
          }),
        ),
      rename: (path: string, newPath: string, reply: Reply) =>
        this.run(reply, () =>
          this.inParent(path, (parent, name) =>
            this.inParent(newPath, async (newParent, newName) => {
              await fs.rename(caller, parent, name, newParent, newName, 0);
              paths.drop(path);
              paths.drop(newPath);
            }),
          ),
        ),
    };
  }

  private attributeTable() {
    const { fs, caller } = this.context;
    const change = (path: string, request: SetAttrRequest, reply: Reply): void =>
      this.run(reply, () =>
        this.at(path, async ({ ino }) => {
          await fs.setattr(caller, ino, request);
        }),
      );
    return {
      getattr: (path: string, reply: Reply<NativeStat>) =>
        this.run(reply, () =>
          this.at(path, async ({ ino }) => toNativeStat((await fs.getattr(caller, ino)).attr)),
        ),
      statfs: (path: string, reply: Reply<NativeStatfs>) =>
        this.run(reply, () => this.at(path, async ({ ino }) => toNativeStatfs(await fs.statfs(caller, ino)))),
      chmod: (path: string, mode: number, reply: Reply) => change(path, { mode }, reply),
      chown: (path: string, uid: number, gid: number, reply: Reply) => {
        const request: SetAttrRequest = {};
        if (uid !== UNCHANGED) request.uid = uid;
        if (gid !== UNCHANGED) request.gid = gid;
        change(path, request, reply);
      },
      truncate: (path: string, size: number, reply: Reply) => change(path, { size }, reply),
      ftruncate: (_path: string, fd: number, size: number, reply: Reply) =>
        this.run(reply, async () => {
          const { ino, handle } = this.handles.get(fd);
          await fs.setattr(caller, ino, { size, handle });
        }),
      utimens: (path: string, atimeMs: number, mtimeMs: number, reply: Reply) =>
        this.run(reply, async () => {
          const [atime, mtime] = [fromNativeMs(atimeMs), fromNativeMs(mtimeMs)];
          if (!atime || !mtime) throw new HoldfastError('EINVAL', 'a time before 1970');
          await this.at(path, ({ ino }) => fs.setattr(caller, ino, { atime, mtime }));
        }),
    };
  }

  private fileTable() {
    const { fs, caller, paths } = this.context;
    return {
      create: (path: string, mode: number, reply: Reply<number>) =>
        this.run(reply, () =>
          this.inParent(path, async (parent, name) => {
            const created = await fs.create(caller, parent, name, mode, O_RDWR_CREAT, 0);
            paths.adopt(path, created.entry);
            return this.handles.add({
              ino: created.entry.attr.ino,
              handle: created.handle,
              flags: O_RDWR_CREAT,
            });
          }),
        ),
      open: (path: string, flags: number, reply: Reply<number>) =>
        this.run(reply, () =>
          this.at(path, async ({ ino }) => {
            const { handle } = await fs.open(caller, ino, flags);
            return this.handles.add({ ino, handle, flags });
          }),
        ),
      read: (_path: string, fd: number, into: Buffer, length: number, offset: number, reply: Reply<number>) =>
        this.transfer(reply, () => this.read(fd, into, length, offset)),
      write: (
        _path: string,
        fd: number,
        data: Buffer,
        length: number,
        offset: number,
        reply: Reply<number>,
      ) => this.transfer(reply, () => this.write(fd, data, length, offset)),
      flush: (_path: string, fd: number, reply: Reply) =>
        this.run(reply, async () => {
          const { ino, handle } = this.handles.get(fd);
          await fs.flush(caller, ino, handle, 0n);
        }),
      release: (_path: string, fd: number, reply: Reply) =>
        this.run(reply, async () => {
          const { ino, handle, flags } = this.handles.get(fd);
          this.handles.remove(fd);
          await fs.release(ino, handle, flags);
        }),
      fsync: (_path: string, dataOnly: number, fd: number, reply: Reply) =>
        this.run(reply, async () => {
          const { ino, handle } = this.handles.get(fd);
          await fs.fsync(caller, ino, handle, dataOnly !== 0);
        }),
      fsyncdir: (path: string, dataOnly: number, _fd: number, reply: Reply) =>
        this.run(reply, () =>
          this.withDirectory(path, (ino, handle) => fs.fsyncdir(caller, ino, handle, dataOnly !== 0)),
        ),
    };
  }

  private xattrTable() {
    const { fs, caller } = this.context;
    return {
      setxattr: (
        path: string,
        name: string,
        value: Buffer,
        _position: number,
        flags: number,
        reply: Reply,
      ) => {
        // The bytes are libfuse's and go with the reply.
        const copy = Buffer.from(value);
        this.run(reply, () =>
          this.at(path, ({ ino }) => fs.setxattr(caller, ino, Buffer.from(name), copy, flags)),
        );
      },
      getxattr: (path: string, name: string, _position: number, reply: Reply<Buffer>) =>
        this.run(reply, async () => {
          const value = await this.at(path, ({ ino }) => fs.getxattr(caller, ino, Buffer.from(name)));
          if (!value) throw new HoldfastError('ENODATA');
          return value;
        }),
      listxattr: (path: string, reply: (errno: number, names?: Buffer[]) => void) =>
        this.run(reply, () => this.at(path, ({ ino }) => fs.listxattr(caller, ino))),
      removexattr: (path: string, name: string, reply: Reply) =>
        this.run(reply, () => this.at(path, ({ ino }) => fs.removexattr(caller, ino, Buffer.from(name)))),
    };
  }

  private async read(fd: number, into: Buffer, length: number, offset: number): Promise<number> {
    const { ino, handle } = this.handles.get(fd);
    let done = 0;
    for (const part of await this.context.fs.read(this.context.caller, ino, handle, offset, length)) {
      done += part.copy(into, done);
    }
    return done;
  }

  /** The bytes are libfuse's: the file system gets a copy to keep. */
  private async write(fd: number, data: Buffer, length: number, offset: number): Promise<number> {
    const { ino, handle, flags } = this.handles.get(fd);
    const copy = Buffer.from(data.subarray(0, length));
    const request = { handle, offset, data: copy, fromCache: false, killPriv: false, flags };
    return this.context.fs.write(this.context.caller, ino, request);
  }

  /** A whole directory: libfuse 2 asks once. Names that are not UTF-8 cannot be told and are left out. */
  private list(path: string): Promise<{ names: string[]; stats: NativeStat[] }> {
    const { fs, caller } = this.context;
    return this.withDirectory(path, async (ino, handle) => {
      const entries: DirEntry[] = [];
      let cookie = 0;
      for (;;) {
        const batch = await fs.readdir(caller, ino, handle, cookie, READDIR_BATCH_ENTRIES, false);
        const last = batch.at(-1);
        if (!last) break;
        cookie = last.cookie;
        for (const entry of batch) if (isUtf8(entry.name)) entries.push(entry);
      }
      return {
        names: entries.map((entry) => entry.name.toString('utf8')),
        stats: entries.map((entry) => typeOnly(entry)),
      };
    });
  }

  private withDirectory<T>(path: string, use: (ino: number, handle: number) => Answer<T>): Promise<T> {
    const { fs, caller } = this.context;
    return this.at(path, async ({ ino }) => {
      const { handle } = await fs.opendir(caller, ino, 0);
      try {
        return await use(ino, handle);
      } finally {
        await fs.releasedir(ino, handle);
      }
    });
  }

  private async at<T>(path: string, use: (pinned: PinnedInode) => Answer<T>): Promise<T> {
    const pinned = await this.context.paths.resolve(checked(path));
    try {
      return await use(pinned);
    } finally {
      pinned.release();
    }
  }

  private inParent<T>(path: string, use: (parent: number, name: Buffer) => Answer<T>): Promise<T> {
    return this.at(parentOf(checked(path)), ({ ino }) => use(ino, Buffer.from(nameOf(path))));
  }

  /** Runs an operation and replies once, whatever happens. */
  private run<T>(reply: (errno: number, result?: T) => void, operation: () => Promise<T>): void {
    operation().then(
      (result) => reply(0, result),
      (error: unknown) => reply(-this.errnoOf(error)),
    );
  }

  /** As run, for read and write, whose count of bytes takes the place of the errno. */
  private transfer(reply: Reply<number>, operation: () => Promise<number>): void {
    const failed = (error: unknown): void => reply(-this.errnoOf(error), 0);
    try {
      operation().then((bytes) => reply(bytes, bytes), failed);
    } catch (error) {
      failed(error);
    }
  }

  private errnoOf(error: unknown): number {
    if (error instanceof HoldfastError) return error.errno;
    if (error instanceof IllegalSequence) return EILSEQ;
    this.context.log.error({ err: error }, 'a request failed unexpectedly');
    return EIO;
  }
}

/** For d_ino and d_type of a listing. */
function typeOnly(entry: DirEntry): NativeStat {
  return {
    mode: entry.type << 12,
    uid: 0,
    gid: 0,
    size: 0,
    dev: 0,
    nlink: 1,
    ino: entry.ino,
    rdev: 0,
    blksize: 0,
    blocks: 0,
    atime: 0,
    mtime: 0,
    ctime: 0,
  };
}
