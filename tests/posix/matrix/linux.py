"""Linux's own: fallocate modes, locks, leases, watches, handles, attributes, directory positions."""
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import threading
import zlib

from bench import ALICE, TYPES, case, checked, chosen, in_child, libc, make, outcome, put, remove, seen, show, t, tick, touched, user

AT_FDCWD = -100


def fallocate(fd, mode, at, length):
    checked(libc.fallocate(fd, mode, ctypes.c_int64(at), ctypes.c_int64(length)))


@case
def fallocate_modes():
    for mode in (0, 1, 2, 3, 8, 9, 16, 17, 32, 33, 0x40, 0x41, 0x80, 0x100, 11, 19):
        for at, length in ((0, 4096), (4096, 8192), (100, 50), (30000, 4096), (0, 0), (-1, 5), (5, -1),
                           (1 << 62, 1 << 62), (0, 40000)):
            if mode in (8, 9, 32, 33, 0x40, 0x41):
                continue  # Shifting ranges and sharing need blocks: refused, see the cases of the suite.
            if not chosen("%d %d %d" % (mode, at, length)):
                continue
            put("f", b"abcdefgh" * 2500)
            fd = os.open("f", os.O_RDWR)
            t("mode %d at %d for %d" % (mode, at, length), fallocate, fd, mode, at, length)
            with open("f", "rb") as whole:
                content = whole.read()
            show("is", len(content), hash_of(content))
            os.close(fd)
    os.mkdir("d")
    os.mkfifo("p")
    for path, flags in (("d", os.O_RDONLY), ("p", os.O_RDWR | os.O_NONBLOCK), ("f", os.O_RDONLY), ("f", os.O_WRONLY | os.O_APPEND)):
        t("%s %d" % (path, flags), fallocate, os.open(path, flags), 0, 0, 100000)


def hash_of(data):
    return zlib.crc32(data)


@case
def extended_attributes():
    put("f")
    os.mkdir("d")
    for path in ("f", "d"):
        for length in (0, 1, 255, 256, 4000):
            name = "user." + "n" * (length - 5 if length > 5 else length)
            t("%s name of %d" % (path, len(name)), os.setxattr, path, name, b"v")
            t("get", os.getxattr, path, name)
            t("remove", os.removexattr, path, name)
        for name in ("", "user", "user.", "trusted.", "security.", "system.x", "other.a", "a", ".", "user.a.b.c", "USER.a"):
            t("%s set %r" % (path, name), os.setxattr, path, name, b"v")
            t("%s get %r" % (path, name), os.getxattr, path, name)
            t("%s remove %r" % (path, name), os.removexattr, path, name)
            with user(ALICE):
                t("%s set %r by alice" % (path, name), os.setxattr, path, name, b"v")
                t("%s get %r by alice" % (path, name), os.getxattr, path, name)
        for flags in (0, 1, 2, 3, 4):
            t("%s flags %d" % (path, flags), os.setxattr, path, "user.f", b"v", flags)
        t("too long a value", os.setxattr, path, "user.long", b"x" * 65537)
        os.setxattr(path, "user.f", b"value")
        buffer = ctypes.create_string_buffer(100)
        for size in (0, 1, 4, 5, 6, 100):
            t("get into %d" % size, lambda: checked(libc.getxattr(os.fsencode(path), b"user.f", buffer, size)))
        for size in (0, 1, 6, 7, 8, 100):
            t("list into %d" % size, lambda: checked(libc.listxattr(os.fsencode(path), buffer, size)))


@case
def locks_of_ranges():
    put("f", b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    ro = os.open("f", os.O_RDONLY)
    wo = os.open("f", os.O_WRONLY)

    def flock_struct(kind, whence, start, length):
        return struct.pack("hhqqi4x", kind, whence, start, length, 0)

    def command(number, descriptor, kind, whence, start, length):
        answer = fcntl.fcntl(descriptor, number, flock_struct(kind, whence, start, length))
        got = struct.unpack("hhqqi4x", answer)
        return "type %d whence %d start %d length %d" % got[:4]

    for number, title in ((fcntl.F_SETLK, "process"), (37, "file")):
        for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK, 7):
            for whence, start, length in ((0, 0, 0), (0, 5, 10), (0, 5, -3), (0, 2, -3), (0, -1, 5), (2, -5, 5), (1, 3, 2),
                                          (0, (1 << 63) - 1, 1), (0, (1 << 63) - 1, 0), (0, 1, (1 << 63) - 1),
                                          (0, 2, (1 << 63) - 1), (0, 1 << 62, 1 << 61), (2, -200, 5), (5, 0, 1)):
                for name, descriptor in (("rw", fd), ("ro", ro), ("wo", wo)):
                    if not chosen("%s %s %d %d %d %d" % (title, name, kind, whence, start, length)):
                        continue
                    t("%s %s %d %d %d %d" % (title, name, kind, whence, start, length), command, number, descriptor, kind,
                      whence, start, length)
                    for each in (fd, ro, wo):
                        outcome(command, number, each, fcntl.F_UNLCK, 0, 0, 0)

    def get_in_child(number, *args):
        return in_child(lambda: 0 if command(number, os.open("f", os.O_RDWR), *args).startswith("type 2") else 1)

    command(fcntl.F_SETLK, fd, fcntl.F_WRLCK, 0, 10, 10)
    for start, length in ((0, 10), (0, 11), (19, 1), (20, 0), (0, 0)):
        show("held by another %d %d" % (start, length), get_in_child(fcntl.F_GETLK, fcntl.F_WRLCK, 0, start, length))
    t("split", command, fcntl.F_SETLK, fd, fcntl.F_UNLCK, 0, 13, 2)
    for start in range(9, 21):
        show("byte %d" % start, get_in_child(fcntl.F_GETLK, fcntl.F_RDLCK, 0, start, 1))
    t("downgrade", command, fcntl.F_SETLK, fd, fcntl.F_RDLCK, 0, 10, 2)
    show("read by another", get_in_child(fcntl.F_GETLK, fcntl.F_RDLCK, 0, 10, 2))
    os.close(os.open("f", os.O_RDONLY))
    show("after a close of any descriptor", get_in_child(fcntl.F_GETLK, fcntl.F_WRLCK, 0, 0, 0))


@case
def whole_file_locks():
    put("f")
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDONLY)
    nb = fcntl.LOCK_NB
    for first in (fcntl.LOCK_SH, fcntl.LOCK_EX):
        for second in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            t("%d" % first, fcntl.flock, one, first | nb)
            t("then %d" % second, fcntl.flock, two, second | nb)
            t("upgrade", fcntl.flock, one, fcntl.LOCK_EX | nb)
            t("downgrade", fcntl.flock, one, fcntl.LOCK_SH | nb)
            t("second again", fcntl.flock, two, second | nb)
            fcntl.flock(one, fcntl.LOCK_UN)
            fcntl.flock(two, fcntl.LOCK_UN)
    t("bad", fcntl.flock, one, 0)
    fcntl.flock(one, fcntl.LOCK_EX)
    copy = os.dup(one)
    os.close(one)
    t("held by the duplicate", fcntl.flock, two, fcntl.LOCK_EX | nb)
    os.close(copy)
    t("then free", fcntl.flock, two, fcntl.LOCK_EX | nb)
    os.mkdir("d")
    t("a directory", fcntl.flock, os.open("d", os.O_RDONLY), fcntl.LOCK_EX | nb)
    fd = os.open("f", os.O_RDWR)
    t("fcntl beside flock", fcntl.lockf, fd, fcntl.LOCK_EX | nb)


@case
def leases_and_watches():
    put("f")
    fd = os.open("f", os.O_RDONLY)
    t("lease r", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    t("get", fcntl.fcntl, fd, fcntl.F_GETLEASE)
    t("unlock", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    t("lease w", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    t("get", fcntl.fcntl, fd, fcntl.F_GETLEASE)
    t("unlock", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    d = os.open(".", os.O_RDONLY)
    t("dnotify", fcntl.fcntl, d, fcntl.F_NOTIFY, fcntl.DN_CREATE)
    t("dnotify off", fcntl.fcntl, d, fcntl.F_NOTIFY, 0)
    watch = checked(libc.inotify_init1(os.O_NONBLOCK))
    os.mkdir("w")
    checked(libc.inotify_add_watch(watch, b"w", 0xfff))
    checked(libc.inotify_add_watch(watch, b"f", 0xfff))
    put("w/a", b"x")
    os.rename("w/a", "w/b")
    os.link("w/b", "w/c")
    os.rename("w/c", "c")
    os.rename("c", "w/d")
    os.chmod("w/b", 0o600)
    os.setxattr("w/b", "user.a", b"v")
    os.truncate("w/b", 5)
    os.utime("w/b")
    os.mkdir("w/e")
    os.symlink("x", "w/s")
    os.rmdir("w/e")
    os.unlink("w/b")
    os.unlink("w/s")
    os.unlink("w/d")
    os.close(fd)
    os.unlink("f")
    os.rmdir("w")
    data, at = os.read(watch, 1 << 16), 0
    while at < len(data):
        number, mask, _, length = struct.unpack_from("iIII", data, at)
        show("event", number, hex(mask), data[at + 16:at + 16 + length].rstrip(b"\0").decode())
        at += 16 + length


@case
def directory_positions():
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    libc.telldir.argtypes = libc.readdir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]

    def entry(handle):
        found = libc.readdir(handle)
        return None if not found else ctypes.string_at(found + 19).decode()

    os.mkdir("d")
    names = ["n%04d" % i for i in range(600)]
    for name in names:
        os.symlink("x", "d/" + name)
    handle = libc.opendir(b"d")
    order, places = [], []
    while True:
        places.append(libc.telldir(handle))
        name = entry(handle)
        if name is None:
            break
        order.append(name)
    show("all once", sorted(order) == sorted(names + [".", ".."]), len(set(places)) == len(places))
    right = 0
    for i in (0, 1, 2, 3, 300, 500, 601, 37):
        libc.seekdir(handle, places[i])
        right += entry(handle) == order[i]
    show("seekdir finds", right)
    libc.rewinddir(handle)
    for name in names[:400]:
        os.unlink("d/" + name)
    for i in range(150):
        os.symlink("x", "d/new%d" % i)
    libc.rewinddir(handle)
    listed = []
    while (name := entry(handle)) is not None:
        listed.append(name)
    show("after rewind", sorted(listed) == sorted(os.listdir("d") + [".", ".."]), len(listed))
    libc.rewinddir(handle)
    kept = set(names[400:])
    found = []
    while (name := entry(handle)) is not None:
        found.append(name)
        if name not in (".", "..") and name not in kept:
            os.unlink("d/" + name)
    show("removing while reading", kept <= set(found), len(found) == len(set(found)), len(os.listdir("d")))
    libc.closedir(handle)
    fd = os.open("d", os.O_RDONLY)
    for place in (1 << 40, 1 << 62, (1 << 63) - 1):
        t("lseek to %d" % place, lambda: None if os.lseek(fd, place, os.SEEK_SET) == place else None)
        t("a listing from there ends", lambda: None if len(os.listdir(fd)) <= len(os.listdir("d")) else 1)


@case
def file_handles():
    libc.name_to_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    mount = os.open(".", os.O_RDONLY)
    os.mkdir("d")
    put("d/f", b"content")
    for path in ("d", "d/f"):
        buffer = ctypes.create_string_buffer(8 + 128)
        struct.pack_into("I", buffer, 0, 128)
        number = ctypes.c_int()
        t("name_to_handle_at", lambda: checked(libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(number), 0)))
        fd = outcome(lambda: checked(libc.open_by_handle_at(mount, buffer, os.O_RDONLY)))
        show("opened", os.path.samestat(os.fstat(fd), os.stat(path)) if isinstance(fd, int) else fd)
        struct.pack_into("I", buffer, 0, 1)
        t("too small", lambda: checked(libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(number), 0)))


@case
def extended_stat():
    def statx(path, mask=0xfff, flags=0x100):
        buffer = ctypes.create_string_buffer(256)
        checked(libc.statx(AT_FDCWD, os.fsencode(path), flags, mask, buffer))
        got, _, attributes = struct.unpack_from("IIQ", buffer, 0)
        return got, attributes, struct.unpack_from("qI", buffer, 0x50)

    for kind in TYPES:
        tick()
        make(kind, "x", 0o644)
        got, attributes, birth = statx("x")
        s = os.lstat("x")
        show("%s birth" % kind, hex(got & 0xfff), attributes & 0x74, birth == divmod(s.st_mtime_ns, 10 ** 9) or (
            0 <= s.st_ctime_ns - birth[0] * 10 ** 9 - birth[1] < 10 ** 9))
        tick()
        os.utime("x", ns=(5, 5), follow_symlinks=False)
        os.lchown("x", 1, 1)
        os.rename("x", "y")
        if kind == "file":
            put("y", b"content")
        show("stays", statx("y")[2] == birth)
        remove("y")
    t("bad flags", statx, ".", 0xfff, 0x10000)
    t("bad mask", statx, ".", 0x80000000)
    t("missing", statx, "missing")


@case
def signals_end_waits():
    def interrupted():
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, "alarm")))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        fcntl.flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)

    put("f")
    held = os.open("f", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    show("flock", in_child(interrupted))
    fcntl.flock(held, fcntl.LOCK_UN)
    fcntl.lockf(held, fcntl.LOCK_EX)

    def ranges():
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, "alarm")))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        fcntl.lockf(os.open("f", os.O_RDWR), fcntl.LOCK_EX)

    show("fcntl", in_child(ranges))


@case
def fifos_and_sockets():
    os.mkfifo("p")
    t("no reader", lambda: os.close(os.open("p", os.O_WRONLY | os.O_NONBLOCK)))
    reader = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("p", os.O_WRONLY | os.O_NONBLOCK)
    t("write", os.write, writer, b"through")
    t("read", os.read, reader, 100)
    show("ready", select.select([reader], [writer], [], 0)[1] == [writer])
    os.close(writer)
    t("end", os.read, reader, 100)
    t("open rw", lambda: os.close(os.open("p", os.O_RDWR)))
    t("truncate", os.truncate, "p", 0)
    t("lseek", os.lseek, reader, 0, 0)
    opened = []
    thread = threading.Thread(target=lambda: opened.append(os.open("p", os.O_RDONLY)))
    os.close(reader)
    thread.start()
    writer = os.open("p", os.O_WRONLY)
    thread.join()
    os.write(writer, b"met")
    t("met", os.read, opened[0], 10)
    server = socket.socket(socket.AF_UNIX)
    server.bind("s")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    t("connect", client.connect, "s")
    os.rename("s", "s2")
    t("renamed", socket.socket(socket.AF_UNIX).connect, "s2")
    os.chmod("s2", 0o600)
    with user(ALICE):
        t("by alice", socket.socket(socket.AF_UNIX).connect, "s2")
    server.close()
    t("nobody listens", socket.socket(socket.AF_UNIX).connect, "s2")
    show("is", seen("s2"))
