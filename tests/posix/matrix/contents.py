"""Contents: reading, writing, cutting, mapping; what each does to the times; what limits do."""
import ctypes
import mmap
import os
import random
import resource
import signal

from bench import PART, ALICE, case, checked, chosen, get, in_child, libc, put, seen, show, t, touched, user

libc.lseek64.restype = ctypes.c_int64


def ctypes_call(name, *args):
    return checked(getattr(libc, name)(*args))


@case
def times_of_contents():
    put("f", b"content")
    put("s", b"source")
    fd = os.open("f", os.O_RDWR)
    ap = os.open("f", os.O_RDWR | os.O_APPEND)
    s = os.open("s", os.O_RDONLY)
    touched("write", ("f", "."), os.pwrite, fd, b"x", 0)
    touched("write of nothing", ("f",), os.pwrite, fd, b"", 0)
    touched("append of nothing", ("f",), os.write, ap, b"")
    touched("writev", ("f",), os.writev, fd, [b"a", b"b"])
    touched("ftruncate same", ("f",), os.ftruncate, fd, os.fstat(fd).st_size)
    touched("truncate same", ("f",), os.truncate, "f", os.fstat(fd).st_size)
    touched("truncate grow", ("f",), os.truncate, "f", 1000)
    touched("truncate negative", ("f",), os.truncate, "f", -1)
    touched("fsync", ("f",), os.fsync, fd)
    touched("copy", ("f", ), os.copy_file_range, s, fd, 6, 0, 100)
    touched("copy of nothing", ("f", ), os.copy_file_range, s, fd, 6, 6, 100)
    touched("sendfile", ("f", ), os.sendfile, fd, s, 0, 6)
    touched("open trunc of nothing", ("f",), lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)))
    touched("open trunc again", ("f",), lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)))
    touched("open creat", ("f", "."), lambda: os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o600)))
    touched("open excl", ("f", "."), lambda: os.close(os.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)))
    os.chmod("f", 0o444)
    with user(ALICE):
        touched("open by alice", ("f", "."), lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)))
        touched("truncate by alice", ("f", "."), os.truncate, "f", 0)
    touched("xattr", ("f",), os.setxattr, "f", "user.a", b"v")

    touched("xattr create", ("f",), os.setxattr, "f", "user.a", b"v", os.XATTR_CREATE)
    touched("xattr remove missing", ("f",), os.removexattr, "f", "user.b")
    touched("fallocate", ("f",), os.posix_fallocate, fd, 0, 10)


@case
def wrong_descriptors():
    put("f", b"content")
    os.mkdir("d")
    os.mkfifo("p")
    os.symlink("f", "l")
    ways = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "path": os.O_PATH, "append": os.O_WRONLY | os.O_APPEND}
    paths = {"f": ways, "d": {"r": os.O_RDONLY, "path": os.O_PATH}, "p": {"rw": os.O_RDWR | os.O_NONBLOCK},
             "l": {"path": os.O_PATH | os.O_NOFOLLOW}}
    other = os.open("f", os.O_RDWR)
    for path, opened in paths.items():
        for way, flags in opened.items():
            fd = os.open(path, flags)
            for title, call in (
                ("pread", lambda: os.pread(fd, 3, 0)), ("pread at -1", lambda: os.pread(fd, 3, -1)),
                ("read of nothing", lambda: os.pread(fd, 0, 0)), ("pwrite", lambda: os.pwrite(fd, b"c", 0)),
                ("pwrite at -1", lambda: os.pwrite(fd, b"c", -1)), ("preadv", lambda: os.preadv(fd, [bytearray(2)], 0)),
                ("ftruncate", lambda: os.ftruncate(fd, 7)), ("ftruncate -1", lambda: os.ftruncate(fd, -1)),
                ("fsync", lambda: os.fsync(fd)), ("fdatasync", lambda: os.fdatasync(fd)),
                ("lseek", lambda: os.lseek(fd, 1, os.SEEK_SET)), ("lseek -1", lambda: os.lseek(fd, -1, os.SEEK_SET)),
                ("seek data", lambda: os.lseek(fd, 0, os.SEEK_DATA)),
                ("seek hole", lambda: None if path == "d" else os.lseek(fd, 0, os.SEEK_HOLE)),
                ("bad whence", lambda: os.lseek(fd, 0, 9)), ("fchmod", lambda: os.fchmod(fd, 0o644)),
                ("fchown", lambda: os.fchown(fd, 0, 0)), ("futimens", lambda: os.utime(fd, ns=(1, 1))),
                ("fstat", lambda: None if os.fstat(fd) else 1), ("fstatvfs", lambda: os.fstatvfs(fd).f_namemax),
                ("fallocate", lambda: os.posix_fallocate(fd, 0, 7)),
                ("fallocate of nothing", lambda: os.posix_fallocate(fd, 0, 0)),
                ("fallocate at -1", lambda: os.posix_fallocate(fd, -1, 7)),
                ("copy to", lambda: os.copy_file_range(other, fd, 2, 0, 4)),
                ("copy from", lambda: os.copy_file_range(fd, other, 2, 0, 4)),
                ("sendfile from", lambda: os.sendfile(other, fd, 0, 2)),
                ("mmap r", lambda: mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ).close()),
                ("mmap rw", lambda: mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()),
                ("mmap private", lambda: mmap.mmap(fd, 4, mmap.MAP_PRIVATE, mmap.PROT_READ).close()),
                ("fadvise", lambda: os.posix_fadvise(fd, 0, 100, os.POSIX_FADV_WILLNEED)),
                ("fadvise dontneed", lambda: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)),
                ("fadvise bad", lambda: os.posix_fadvise(fd, 0, 0, 77)),
                ("readahead", lambda: ctypes_call("readahead", fd, ctypes.c_int64(0), 4096)),
                ("sync_file_range", lambda: ctypes_call("sync_file_range", fd, ctypes.c_int64(0), ctypes.c_int64(0), 7)),
                ("sync_file_range bad", lambda: ctypes_call("sync_file_range", fd, ctypes.c_int64(0), ctypes.c_int64(0), 8)),
                ("syncfs", lambda: ctypes_call("syncfs", fd)),
                ("getdents", lambda: len(os.listdir(fd))), ("fchdir", lambda: os.fchdir(fd)),
                ("fsetxattr", lambda: os.setxattr(fd, "user.a", b"v")),
                ("fgetxattr", lambda: os.getxattr(fd, "user.a")),
            ):
                if (title.startswith("mmap") and path == "d") or not chosen(path + way + title):
                    continue
                work = os.getcwd()
                t("%s %s %s" % (path, way, title), call)
                os.chdir(work)
            os.close(fd)


@case
def vectors_and_positions():
    fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
    t("writev", os.writev, fd, [b"ab", b"", b"cdef"])
    t("pwritev", os.pwritev, fd, [b"XY", b"Z"], 10)
    show("is", get("f"))
    one, two = bytearray(3), bytearray(20)
    t("preadv", os.preadv, fd, [one, two], 1)
    show("got", bytes(one), bytes(two))
    t("position", os.lseek, fd, 0, os.SEEK_CUR)
    t("pwritev2 append", os.pwritev, fd, [b"END"], 0, os.RWF_APPEND if hasattr(os, "RWF_APPEND") else 0x10)
    t("pwritev2 dsync", os.pwritev, fd, [b"D"], 0, 2)
    t("pwritev2 bad flag", os.pwritev, fd, [b"D"], 0, 0x4000)
    show("is", get("f"))
    ap = os.open("f", os.O_RDWR | os.O_APPEND)
    t("pwrite on an appending descriptor", os.pwrite, ap, b"!", 0)
    show("is", get("f"))
    t("its position", os.lseek, ap, 0, os.SEEK_CUR)
    t("write", os.write, ap, b"?")
    t("its position", os.lseek, ap, 0, os.SEEK_CUR)
    t("lseek beyond", os.lseek, fd, 1 << 40, os.SEEK_SET)
    t("read there", os.read, fd, 10)
    t("lseek end", os.lseek, fd, -1, os.SEEK_END)
    t("read there", os.read, fd, 10)
    t("iov of nothing", os.writev, fd, [])
    t("null buffer", lambda: checked(libc.write(fd, None, 10)))
    t("null read", lambda: checked(libc.pread(fd, None, 10, ctypes.c_int64(0))))
    t("null path", lambda: checked(libc.open(None, 0)))
    t("bad path", lambda: checked(libc.mkdir(ctypes.c_void_p(1), 0)))


@case
def file_size_limits():
    def limited(call):
        def run():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            return call()
        return run

    def ignored(call):
        def run():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            return limited(call)()
        return run

    put("f", b"x" * 990)
    for title, call in (
        ("write over", lambda: os.pwrite(os.open("f", os.O_WRONLY), b"y" * 100, 1000)),
        ("write up to", lambda: os.pwrite(os.open("f", os.O_WRONLY), b"y" * 100, 950) - 50),
        ("append", lambda: os.write(os.open("f", os.O_WRONLY | os.O_APPEND), b"y" * 100)),
        ("truncate", lambda: os.truncate("f", 1001)), ("ftruncate", lambda: os.ftruncate(os.open("f", os.O_WRONLY), 2000)),
        ("truncate within", lambda: os.truncate("f", 1000)),
        ("fallocate", lambda: os.posix_fallocate(os.open("f", os.O_WRONLY), 0, 2000)),
        ("copy", lambda: os.copy_file_range(os.open("f", os.O_RDONLY), os.open("g", os.O_CREAT | os.O_WRONLY), 500, 0, 900)),
        ("O_TRUNC", lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))),
    ):
        show(title, in_child(limited(call)), seen("f"), in_child(ignored(call)), seen("f"))


@case
def sizes_and_offsets():
    fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
    for size in (0, 1, 4095, 4096, 4097, (1 << 22) - 1, 1 << 22, (1 << 22) + 1, 1 << 31, 1 << 32, (1 << 40) + 7, 5):
        t("ftruncate %d" % size, os.ftruncate, fd, size)
        show("is", os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END), len(os.pread(fd, 100, max(0, size - 50))))
        t("seek data", os.lseek, fd, 0, os.SEEK_DATA)
        t("seek hole", os.lseek, fd, 0, os.SEEK_HOLE)
    for at in ((1 << 31) - 2, (1 << 32) - 2, (1 << 22) - 2, (1 << 40) - 2):
        t("pwrite at %d" % at, os.pwrite, fd, b"edge", at)
        show("around", os.pread(fd, 10, at - 3))
    for at in (0, (1 << 22) - 4096, 1 << 33):
        show("data after %d" % at, os.lseek(fd, at, os.SEEK_DATA) // 4096)


@case
def random_operations_on_one_file():
    """As fsx: reads, writes, cuts, holes and mappings at random; every byte is compared with memory."""
    for seed in (1, 2, 3) if PART == 1 else (1,):
        chance = random.Random(seed)
        limit = 3 << 20
        model = bytearray()
        path = "r%d" % seed
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

        def grow(size):
            if len(model) < size:
                model.extend(bytes(size - len(model)))

        for step in range(250):
            at, length = chance.randrange(limit), chance.randrange(1, 1 << chance.randrange(2, 19))
            kind = chance.choice(("write", "write", "mapwrite", "read", "mapread", "cut", "punch", "zero", "grow", "copy",
                                  "append", "sync", "reopen", "drop"))
            data = bytes([chance.randrange(256)]) * length
            if kind == "write":
                os.pwrite(fd, data, at)
                grow(at + length)
                model[at:at + length] = data
            elif kind == "append":
                end = os.lseek(fd, 0, os.SEEK_END)
                assert end == len(model), (seed, step, end, len(model))
                os.write(fd, data[:1000])
                model.extend(data[:1000])
            elif kind == "cut":
                os.ftruncate(fd, at)
                grow(at)
                del model[at:]
            elif kind in ("punch", "zero", "grow"):
                mode = {"punch": 3, "zero": 16, "grow": 0}[kind]
                checked(libc.fallocate(fd, mode, ctypes.c_int64(at), ctypes.c_int64(length)))
                if kind != "punch":
                    grow(at + length)
                if kind != "grow":
                    end = min(at + length, len(model))
                    model[at:end] = bytes(max(0, end - at))
            elif kind == "copy" and len(model) > length:
                source = chance.randrange(len(model) - length)
                if abs(source - at) >= length:
                    done = 0
                    while done < length:
                        done += os.copy_file_range(fd, fd, length - done, source + done, at + done)
                    grow(at + length)
                    model[at:at + length] = model[source:source + length]
            elif kind in ("mapwrite", "mapread") and len(model) > 0:
                with mmap.mmap(fd, len(model)) as mapped:
                    end = min(at + length, len(model))
                    if kind == "mapwrite" and at < end:
                        mapped[at:end] = data[:end - at]
                        model[at:end] = data[:end - at]
                    elif at < end:
                        assert mapped[at:end] == model[at:end], (seed, step, "map", at, end)
            elif kind == "sync":
                os.fsync(fd)
            elif kind == "reopen":
                os.close(fd)
                fd = os.open(path, os.O_RDWR)
            elif kind == "drop":
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            got = os.pread(fd, length, at)
            assert got == model[at:at + length], (seed, step, kind, at, length)
            assert os.fstat(fd).st_size == len(model), (seed, step, kind)
        with open(path, "rb") as whole:
            assert whole.read() == model, (seed, "end")
        show("seed %d" % seed, "equal")


@case
def mappings():
    put("f", b"x" * 10000)
    fd = os.open("f", os.O_RDWR)
    one = mmap.mmap(fd, 10000)
    two = mmap.mmap(os.open("f", os.O_RDWR), 10000)
    one[5000:5003] = b"abc"
    show("other mapping", two[4999:5004], os.pread(fd, 5, 4999))
    os.pwrite(fd, b"123", 5001)
    show("after write", one[4999:5006], two[4999:5006])
    os.ftruncate(fd, 5002)
    show("cut", one[4999:5006])
    os.ftruncate(fd, 10000)
    show("grown", one[4999:5006])

    def beyond():
        short = mmap.mmap(fd, 10000)
        os.ftruncate(fd, 100)
        return short[8192]

    show("beyond the end", in_child(beyond))
    os.ftruncate(fd, 10000)

    def store():
        one[0:3] = b"new"
        one.flush()

    os.utime("f", ns=(os.stat("f").st_mtime_ns + 10 ** 9, os.stat("f").st_mtime_ns))
    touched("store and msync", ("f",), store)
    one.close()
    two.close()
    os.unlink("f")
    gone = mmap.mmap(fd, 10000)
    gone[0:3] = b"dead"[:3]
    gone.flush()
    show("nameless", os.pread(fd, 5, 0))


@case
def direct_io():
    size = 1 << 16
    block = mmap.mmap(-1, size)
    block[:] = bytes(range(256)) * (size // 256)
    fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    t("write", os.pwritev, fd, [block], 0)
    t("write behind", os.pwritev, fd, [block], size)
    buffered = os.open("f", os.O_RDWR)
    show("seen", os.pread(buffered, 4, 65), os.fstat(fd).st_size)
    os.pwrite(buffered, b"buffered", 100)
    back = mmap.mmap(-1, size)
    t("read", os.preadv, fd, [back], 0)
    show("got", back[98:110], back[65000:65004])
    t("read at the end", os.preadv, fd, [back], 2 * size - 4096)
    t("read beyond", os.preadv, fd, [back], 4 * size)
    mapped = mmap.mmap(buffered, size)
    mapped[200:204] = b"maps"
    t("read", os.preadv, fd, [back], 0)
    show("got", back[199:205])
    block[0:6] = b"direct"
    t("write", os.pwritev, fd, [block], 0)
    show("seen", mapped[0:6], os.pread(buffered, 6, 0))
