"""Makes system calls for tests, as one user: one JSON request a line in, one JSON answer a line out.

A request is [call, argument...]; the answer is {"value": ...} or {"errno": "ENOENT"}. A list of requests is answered by
the list of answers. Strings stand for bytes
(Latin-1). Descriptors are this process's own numbers. Started as: agent.py UID GID GROUPS DIRECTORY
"""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import stat as st
import sys
import time

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
O_TMPFILE = 0o20000000 | os.O_DIRECTORY
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
LISTING_BYTES = 1 << 16
HANDLE_BYTES = 128
maps = {}


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_int64)]


def raw(text):
    return text.encode("latin-1")


def text(data):
    return data.decode("latin-1")


def reset(directory):
    """Gives back all that earlier calls have opened and mapped, and starts anew in a directory."""
    maps.clear()
    os.closerange(3, 1024)
    os.umask(0)
    os.chdir(raw(directory))


def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "call")
    return result


def flags_of(names):
    value = 0
    for name in names.split("|"):
        value |= O_TMPFILE if name == "O_TMPFILE" else getattr(os, name)
    return value


def attributes(s):
    return {
        "type": {st.S_IFREG: "file", st.S_IFDIR: "dir", st.S_IFLNK: "symlink", st.S_IFIFO: "fifo",
                 st.S_IFSOCK: "socket", st.S_IFCHR: "char", st.S_IFBLK: "block"}[st.S_IFMT(s.st_mode)],
        "mode": st.S_IMODE(s.st_mode), "nlink": s.st_nlink, "uid": s.st_uid, "gid": s.st_gid,
        "size": s.st_size, "ino": s.st_ino, "rdev": s.st_rdev, "blocks": s.st_blocks, "dev": s.st_dev,
        # Strings: nanoseconds do not fit a JavaScript number.
        "atime": str(s.st_atime_ns), "mtime": str(s.st_mtime_ns), "ctime": str(s.st_ctime_ns),
    }


def timespec(value):
    if value == "now":
        return Timespec(0, UTIME_NOW)
    if value == "omit":
        return Timespec(0, UTIME_OMIT)
    if isinstance(value, list):
        return Timespec(value[0], value[1])
    ns = int(value)
    return Timespec(ns // 10**9, ns % 10**9)


def utimens(fd, path, atime, mtime, flags):
    times = (Timespec * 2)(timespec(atime), timespec(mtime))
    checked(libc.futimens(fd, times) if path is None else libc.utimensat(fd, path, times, flags))


def renameat2(source, target, flags):
    # The dynamic library of old systems lacks the wrapper.
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    checked(libc.syscall(ctypes.c_long(number), AT_FDCWD, raw(source), AT_FDCWD, raw(target), ctypes.c_uint(flags)))


def link(source, path, follow=False):
    checked(libc.linkat(AT_FDCWD, raw(source), AT_FDCWD, raw(path), AT_SYMLINK_FOLLOW if follow else 0))


def linkat_fd(fd, path):
    checked(libc.linkat(AT_FDCWD, raw("/proc/self/fd/%d" % fd), AT_FDCWD, raw(path), AT_SYMLINK_FOLLOW))


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def copy_file_range(source, target, count, source_at=None, target_at=None):
    os.fstat(source)  # as cp does: a FUSE kernel ends the range at the size that it was told last
    return os.copy_file_range(source, target, count, source_at, target_at)


def listing(path):
    return sorted(text(name) for name in os.listdir(raw(path)))


def map_file(fd, length, protection, sharing):
    prot = {"r": mmap.PROT_READ, "rw": mmap.PROT_READ | mmap.PROT_WRITE}[protection]
    kind = {"shared": mmap.MAP_SHARED, "private": mmap.MAP_PRIVATE}[sharing]
    key = len(maps) + 1
    maps[key] = mmap.mmap(fd, length, kind, prot)
    return key


def map_store(key, at, data):
    maps[key][at:at + len(data)] = raw(data)


def bind_socket(path):
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(raw(path))
    finally:
        made.close()


# ioctl_iflags(2), the letters of chattr(1), and ioctl_xfs_fsgetxattr(2).
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
INODE_FLAGS = {"S": 0x8, "i": 0x10, "a": 0x20, "d": 0x40, "A": 0x80, "D": 0x10000, "C": 0x800000}
XFLAGS = {"i": 0x8, "a": 0x10, "S": 0x20, "A": 0x40, "d": 0x80}


def control(fd, command, data):
    buffer = bytearray(data)
    fcntl.ioctl(fd, command, buffer, True)
    return bytes(buffer)


def letters(value, table):
    return "".join(letter for letter, bit in table.items() if value & bit)


def flags_get(fd):
    return int.from_bytes(control(fd, FS_IOC_GETFLAGS, bytes(8))[:4], "little")


def flags_set(fd, value):
    control(fd, FS_IOC_SETFLAGS, value.to_bytes(8, "little"))


def on_file(path, act):
    fd = os.open(raw(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return act(fd)
    finally:
        os.close(fd)


def fchattr(fd, change):
    """As chattr(1): "+ia-d"."""
    value, adds = flags_get(fd), True
    for letter in change:
        if letter in "+-":
            adds = letter == "+"
        elif adds:
            value |= INODE_FLAGS[letter]
        else:
            value &= ~INODE_FLAGS[letter]
    flags_set(fd, value)


def xflags_set(fd, names):
    xattr = bytearray(control(fd, FS_IOC_FSGETXATTR, bytes(28)))
    xattr[0:4] = sum(XFLAGS[letter] for letter in names).to_bytes(4, "little")
    control(fd, FS_IOC_FSSETXATTR, xattr)


def flags_shown(path):
    try:
        return on_file(path, lambda fd: letters(flags_get(fd), INODE_FLAGS))
    except OSError:
        return ""  # a file system without


def clear_flags():
    """So that everything below the present directory can be removed."""
    for directory, _, names in os.walk(b".", topdown=True):
        for path in [directory] + [os.path.join(directory, name) for name in names]:
            if st.S_IFMT(os.lstat(path).st_mode) in (st.S_IFREG, st.S_IFDIR):
                on_file(text(path), lambda fd: fchattr(fd, "-ia"))


def map_and_store(fd, data):
    """Stores through a mapping, in a process of its own: what a signal or an error makes of it."""
    child = os.fork()
    if child == 0:
        try:
            with mmap.mmap(fd, len(data), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
                mapping[0:len(data)] = raw(data)
                mapping.flush()
            os._exit(0)
        except OSError:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    return "stored" if status == 0 else "refused"


def tick():
    """Ends when the clock that file times are taken from has moved on, twice."""
    for _ in range(2):
        start = time.clock_gettime_ns(time.CLOCK_REALTIME_COARSE if hasattr(time, "CLOCK_REALTIME_COARSE") else 5)
        while time.clock_gettime_ns(5) == start:
            time.sleep(0.001)


def lock(fd, kind, start, length, wait):
    """An fcntl lock of this process."""
    command = {"r": fcntl.LOCK_SH, "w": fcntl.LOCK_EX, "u": fcntl.LOCK_UN}[kind]
    fcntl.lockf(fd, command if wait or kind == "u" else command | fcntl.LOCK_NB, length, start)


def write_all(path, data, mode=0o644):
    # Non-blocking: a fifo without a reader is an error, not a wait.
    fd = os.open(raw(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, mode)
    try:
        return os.write(fd, raw(data))
    finally:
        os.close(fd)


def read_all(path):
    fd = os.open(raw(path), os.O_RDONLY | os.O_NONBLOCK)
    try:
        parts = []
        while True:
            part = os.read(fd, 1 << 20)
            if not part:
                return text(b"".join(parts))
            parts.append(part)
    finally:
        os.close(fd)


def explicit(ns):
    """A time that was set to a moment before 2010, else that it was not."""
    return str(ns) if ns < 1262304000 * 10**9 else "now"


def snapshot():
    """Everything below the present directory that two file systems must agree on."""
    found = {}
    first = {}

    def visit(path):
        s = os.lstat(path)
        seen = attributes(s)
        seen["same as"] = first.setdefault(s.st_ino, text(path))
        for name in ("ino", "dev", "blocks", "ctime"):
            del seen[name]
        if st.S_ISDIR(s.st_mode):
            del seen["size"]
        seen["mtime"] = explicit(s.st_mtime_ns)
        if st.S_ISFIFO(s.st_mode):
            # May differ: what is written to a fifo changes no time of it on a file system of several machines.
            del seen["mtime"]
        # May differ: an open for reading counts as a read where the kernel answers reads from its cache.
        del seen["atime"]
        names = xattr_names(os.listxattr(path, follow_symlinks=False))
        seen["xattrs"] = {name: text(os.getxattr(path, raw(name), follow_symlinks=False)) for name in names}
        if st.S_ISDIR(s.st_mode) or st.S_ISREG(s.st_mode):
            seen["flags"] = flags_shown(text(path))
        if st.S_ISLNK(s.st_mode):
            seen["target"] = text(os.readlink(path))
        elif st.S_ISREG(s.st_mode):
            seen["content"] = read_all(text(path))
        found[text(path)] = seen
        if st.S_ISDIR(s.st_mode):
            for name in sorted(os.listdir(path)):
                visit(path + b"/" + name)

    visit(b".")
    return found


def statvfs(path):
    s = os.statvfs(raw(path))
    return {"blocks": s.f_blocks, "free": s.f_bfree, "files": s.f_files, "filesFree": s.f_ffree,
            "nameMax": s.f_namemax, "fragment": s.f_frsize, "flags": s.f_flag}


def as_user(uid, act):
    """Makes calls in another user's name, as far as files go."""
    libc.setfsuid(uid)
    try:
        return act()
    finally:
        libc.setfsuid(os.geteuid())


def opened(fd):
    """A descriptor, and what never changes of its file: the owner it was made for, and what it is."""
    s = os.fstat(fd)
    return {"fd": fd, "uid": s.st_uid, "isDirectory": st.S_ISDIR(s.st_mode)}


def create_at(directory, name, exclusive, mode, uid):
    flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if exclusive else 0)
    return opened(as_user(uid, lambda: os.open(raw(name), flags, mode, dir_fd=directory)))


def lookup_at(directory, name):
    s = os.stat(raw(name), dir_fd=directory, follow_symlinks=False)
    return {"uid": s.st_uid, "isDirectory": st.S_ISDIR(s.st_mode)}


def renameat2_at(directory, name, target_directory, target, flags):
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    checked(libc.syscall(ctypes.c_long(number), directory, raw(name), target_directory, raw(target),
                         ctypes.c_uint(flags)))


def seek(fd, at, whence):
    """lseek(2). Where holes are may differ from one file system to the other: the position stays as it was before."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    found = os.lseek(fd, at, getattr(os, whence))
    if whence in ("SEEK_DATA", "SEEK_HOLE"):
        os.lseek(fd, here, os.SEEK_SET)
    return found


def parent_listed(fd):
    """The inode that ".." has in the listing of an open directory, begun anew."""
    number = {"x86_64": 217, "aarch64": 61}[os.uname().machine]
    os.lseek(fd, 0, os.SEEK_SET)
    buffer = ctypes.create_string_buffer(LISTING_BYTES)
    while True:
        size = checked(libc.syscall(ctypes.c_long(number), fd, buffer, ctypes.c_uint(LISTING_BYTES)))
        if size == 0:
            return None
        at = 0
        while at < size:
            length = int.from_bytes(buffer.raw[at + 16:at + 18], "little")
            if buffer.raw[at + 19:at + length].split(b"\0", 1)[0] == b"..":
                return int.from_bytes(buffer.raw[at:at + 8], "little")
            at += length


def handle_of(path):
    buffer = ctypes.create_string_buffer(HANDLE_BYTES.to_bytes(4, "little") + bytes(4 + HANDLE_BYTES), 8 + HANDLE_BYTES)
    checked(libc.name_to_handle_at(AT_FDCWD, raw(path), buffer, ctypes.byref(ctypes.c_int()), 0))
    return text(buffer.raw)


def open_handle(handle, flags):
    mount = os.open(".", os.O_RDONLY)
    try:
        return checked(libc.open_by_handle_at(mount, raw(handle), flags_of(flags)))
    finally:
        os.close(mount)


def linkat_fd_at(fd, directory, name):
    checked(libc.linkat(AT_FDCWD, raw("/proc/self/fd/%d" % fd), directory, raw(name), AT_SYMLINK_FOLLOW))


def listing_at(directory):
    """The names of a small directory, by one system call: what is there at one moment."""
    number = {"x86_64": 217, "aarch64": 61}[os.uname().machine]
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        buffer = ctypes.create_string_buffer(LISTING_BYTES)
        size = checked(libc.syscall(ctypes.c_long(number), fd, buffer, ctypes.c_uint(LISTING_BYTES)))
    finally:
        os.close(fd)
    names = []
    at = 0
    while at < size:
        length = int.from_bytes(buffer.raw[at + 16:at + 18], "little")
        names.append(buffer.raw[at + 19:at + length].split(b"\0", 1)[0])
        at += length
    return sorted(text(name) for name in names if name not in (b".", b".."))


def timed(call):
    """A call's answer, and when it was made and answered: microseconds of a clock that all processes share."""
    began = time.monotonic_ns()
    result = answer(call)
    return {"began": began / 1000, "ended": time.monotonic_ns() / 1000, "answer": result}


def xattr_names(names):
    # A kernel with a security module adds its own label to every file.
    return sorted(text(os.fsencode(name)) for name in names if not name.startswith("security.selinux"))


CALLS = {
    "open": lambda p, f, m=0o666: os.open(raw(p), flags_of(f), m),
    "close": lambda fd: os.close(fd),
    "dup": lambda fd: os.dup(fd),
    "read": lambda fd, n: text(os.read(fd, n)),
    "pread": lambda fd, n, at: text(os.pread(fd, n, at)),
    "write": lambda fd, d: os.write(fd, raw(d)),
    "pwrite": lambda fd, d, at: os.pwrite(fd, raw(d), at),
    "lseek": seek,
    "ftruncate": lambda fd, n: os.ftruncate(fd, n),
    "fsync": lambda fd: os.fsync(fd),
    "fdatasync": lambda fd: os.fdatasync(fd),
    "fstat": lambda fd: attributes(os.fstat(fd)),
    "fchmod": lambda fd, m: os.fchmod(fd, m),
    "fchown": lambda fd, u, g: os.fchown(fd, u, g),
    "fallocate": fallocate,
    "posix_fallocate": lambda fd, at, n: os.posix_fallocate(fd, at, n),
    "copy_file_range": copy_file_range,
    "mkdir": lambda p, m=0o777: os.mkdir(raw(p), m),
    "rmdir": lambda p: os.rmdir(raw(p)),
    "unlink": lambda p: os.unlink(raw(p)),
    "link": link,
    "linkat_fd": linkat_fd,
    "symlink": lambda target, p: os.symlink(raw(target), raw(p)),
    "readlink": lambda p: text(os.readlink(raw(p))),
    "rename": lambda a, b: os.rename(raw(a), raw(b)),
    "renameat2": renameat2,
    "mkfifo": lambda p, m=0o666: os.mkfifo(raw(p), m),
    "mknod": lambda p, mode, dev=0: os.mknod(raw(p), mode, dev),
    "bind": bind_socket,
    "chmod": lambda p, m: os.chmod(raw(p), m),
    "chown": lambda p, u, g: os.chown(raw(p), u, g),
    "lchown": lambda p, u, g: os.lchown(raw(p), u, g),
    "truncate": lambda p, n: os.truncate(raw(p), n),
    "utimensat": lambda p, a, m, nofollow=False: utimens(AT_FDCWD, raw(p), a, m, 0x100 if nofollow else 0),
    "futimens": lambda fd, a, m: utimens(fd, None, a, m, 0),
    "stat": lambda p: attributes(os.stat(raw(p))),
    "lstat": lambda p: attributes(os.lstat(raw(p))),
    "access": lambda p, m: checked(libc.access(raw(p), m)),
    "statvfs": statvfs,
    "list": listing,
    "chdir": lambda p: os.chdir(raw(p)),
    "umask": lambda m: os.umask(m),
    "setxattr": lambda p, n, v, flags=0: os.setxattr(raw(p), raw(n), raw(v), flags),
    "getxattr": lambda p, n: text(os.getxattr(raw(p), raw(n))),
    "listxattr": lambda p: xattr_names(os.listxattr(raw(p))),
    "removexattr": lambda p, n: os.removexattr(raw(p), raw(n)),
    "lsetxattr": lambda p, n, v, flags=0: os.setxattr(raw(p), raw(n), raw(v), flags, follow_symlinks=False),
    "lgetxattr": lambda p, n: text(os.getxattr(raw(p), raw(n), follow_symlinks=False)),
    "llistxattr": lambda p: xattr_names(os.listxattr(raw(p), follow_symlinks=False)),
    "fsetxattr": lambda fd, n, v, flags=0: os.setxattr(fd, raw(n), raw(v), flags),
    "flistxattr": lambda fd: xattr_names(os.listxattr(fd)),
    "fgetxattr": lambda fd, n: text(os.getxattr(fd, raw(n))),
    "mmap": map_file,
    "mstore": map_store,
    "mload": lambda key, at, n: text(maps[key][at:at + n]),
    "msync": lambda key: maps[key].flush(),
    "munmap": lambda key: maps.pop(key).close(),
    "lock": lock,
    "tick": tick,
    "snapshot": snapshot,
    "reset": reset,
    "writeAll": write_all,
    "readAll": read_all,
    "openAt": lambda directory, name: opened(os.open(raw(name), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)),
    "createAt": create_at,
    "mkdirAt": lambda directory, name, m, uid: as_user(uid, lambda: os.mkdir(raw(name), m, dir_fd=directory)),
    "unlinkAt": lambda directory, name: os.unlink(raw(name), dir_fd=directory),
    "rmdirAt": lambda directory, name: os.rmdir(raw(name), dir_fd=directory),
    "lookupAt": lookup_at,
    "linkatFdAt": linkat_fd_at,
    "renameat2At": renameat2_at,
    "listAt": listing_at,
    "parentListed": parent_listed,
    "handleOf": handle_of,
    "openHandle": open_handle,
    "timed": timed,
    "chattr": lambda p, change: on_file(p, lambda fd: fchattr(fd, change)),
    "fchattr": fchattr,
    "lsattr": lambda p: on_file(p, lambda fd: letters(flags_get(fd), INODE_FLAGS)),
    "xattrFlags": lambda p: on_file(p, lambda fd: letters(
        int.from_bytes(control(fd, FS_IOC_FSGETXATTR, bytes(28))[:4], "little"), XFLAGS)),
    "setXattrFlags": lambda p, names: on_file(p, lambda fd: xflags_set(fd, names)),
    "control": lambda fd, command, length: text(control(fd, command, bytes(length))),
    "clearFlags": clear_flags,
    "mapAndStore": map_and_store,
    "fdAppend": lambda fd, on: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND if on else 0),
    "fdFlags": lambda fd: fcntl.fcntl(fd, fcntl.F_GETFL),
}


def answer(request):
    call, *arguments = request
    try:
        return {"value": CALLS[call](*arguments)}
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno, str(error.errno))}


def main():
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    groups = [int(group) for group in sys.argv[3].split(",") if group]
    if os.geteuid() == 0:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.umask(0)
    os.chdir(sys.argv[4])
    for line in sys.stdin:
        request = json.loads(line)
        many = isinstance(request[0], list)
        sys.stdout.write(json.dumps([answer(one) for one in request] if many else answer(request)) + "\n")
        sys.stdout.flush()


main()
