"""Names: which entries each call takes, refuses, makes, and what it does to the times of both directories."""
import ctypes
import os
import stat

from bench import ALICE, BOB, TYPES, case, checked, chosen, get, libc, make, put, remove, seen, show, t, touched, user

AT_FDCWD = -100


def rename2(one, two, flags):
    checked(libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), ctypes.c_uint(flags)))


@case
def every_call_on_every_type():
    calls = {
        "open r": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_NONBLOCK)),
        "open w": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK)),
        "open creat": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)),
        "open creat excl": lambda p: os.close(os.open(p, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)),
        "open creat directory": lambda p: os.close(os.open(p, os.O_CREAT | os.O_DIRECTORY, 0o644)),
        "open trunc": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)),
        "open directory": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_DIRECTORY)),
        "open nofollow": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)),
        "open path": lambda p: os.close(os.open(p, os.O_PATH | os.O_NOFOLLOW)),
        "open append trunc": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_APPEND | os.O_TRUNC | os.O_NONBLOCK)),
        "open tmpfile": lambda p: os.close(os.open(p, os.O_RDWR | os.O_TMPFILE, 0o600)),
        "mkdir": lambda p: os.mkdir(p),
        "rmdir": lambda p: os.rmdir(p),
        "unlink": lambda p: os.unlink(p),
        "mkfifo": lambda p: os.mkfifo(p),
        "mknod": lambda p: os.mknod(p, stat.S_IFREG | 0o644),
        "symlink": lambda p: os.symlink("x", p),
        "readlink": lambda p: os.readlink(p),
        "link from": lambda p: os.link(p, "other", follow_symlinks=False),
        "link from follow": lambda p: os.link(p, "other", follow_symlinks=True),
        "link to": lambda p: os.link("plain", p, follow_symlinks=False),
        "rename from": lambda p: os.rename(p, "other"),
        "rename file to": lambda p: os.rename("plain", p),
        "rename dir to": lambda p: os.rename("plaindir", p),
        "rename noreplace": lambda p: rename2("plain", p, 1),
        "rename exchange": lambda p: rename2("plain", p, 2),
        "rename whiteout": lambda p: rename2(p, "other", 4),
        "chmod": lambda p: os.chmod(p, 0o600),
        "chmod nofollow": lambda p: checked(libc.fchmodat(AT_FDCWD, os.fsencode(p), 0o600, 0x100)),
        "chown": lambda p: os.chown(p, 5, 6),
        "lchown": lambda p: os.lchown(p, 5, 6),
        "truncate": lambda p: os.truncate(p, 3),
        "utime": lambda p: os.utime(p, ns=(5, 6)),
        "utime nofollow": lambda p: os.utime(p, ns=(5, 6), follow_symlinks=False),
        "chdir": lambda p: os.chdir(p),
        "listdir": lambda p: " ".join(sorted(os.listdir(p))),
        "statvfs": lambda p: None if os.statvfs(p).f_namemax == 255 else 1,
        "setxattr user": lambda p: os.setxattr(p, "user.a", b"v", follow_symlinks=False),
        "setxattr trusted": lambda p: os.setxattr(p, "trusted.a", b"v", follow_symlinks=False),
        "getxattr": lambda p: os.getxattr(p, "user.a", follow_symlinks=False),
        "removexattr": lambda p: os.removexattr(p, "user.a", follow_symlinks=False),
        "listxattr": lambda p: " ".join(os.listxattr(p, follow_symlinks=False)),
        "access": lambda p: checked(libc.access(os.fsencode(p), 7)),
    }
    work = os.getcwd()
    for kind in TYPES:
        for slash in ("", "/", "/.", "/..", "/x"):
            for title, call in calls.items():
                if kind == "block" and title.startswith("open") and not slash:
                    continue  # Whether the machine has the device decides.
                if not chosen(kind + slash + title):
                    continue
                make(kind, "it", 0o755)
                put("plain", b"plain")
                os.mkdir("plaindir")
                t("%s%s %s" % (kind, slash, title), call, "it" + slash)
                os.chdir(work)
                show("left", seen("it"), "|", seen("plain"), "|", seen("plaindir"), "|", seen("other"))
                for path in ("it", "plain", "plaindir", "other"):
                    remove(path)


@case
def times_of_both_directories():
    for kind in TYPES:
        os.mkdir("a")
        os.mkdir("b")
        make(kind, "a/x", 0o755)
        both = ("a", "b")
        if kind != "dir":
            touched(kind + " link", ("a", "b", "a/x"), os.link, "a/x", "b/l", follow_symlinks=False)
            touched(kind + " unlink of one of two", ("a", "b", "a/x"), os.unlink, "b/l")
        touched(kind + " rename in one", (*both, ), os.rename, "a/x", "a/y")
        touched(kind + " rename across", (*both, ), os.rename, "a/y", "b/z")
        put("b/other")
        touched(kind + " exchange", (*both, ), rename2, "b/z", "b/other", 2)
        show("is", seen("b/z"), seen("b/other"))
        touched(kind + " failed rename", (*both, "b/other"), os.rename, "b/other", "a/none/x")
        touched(kind + " failed link", (*both, "b/other"), os.link, "b/other", "b/z")
        touched(kind + " failed rmdir", (*both, "b/other"), os.rmdir, "b")
        touched(kind + " failed unlink", (*both, "b/other"), os.unlink, "b/none")
        touched(kind + " noreplace", (*both, "b/other"), rename2, "b/other", "b/z", 1)
        touched(kind + " remove", (*both, ), os.rmdir if kind == "dir" else os.unlink, "b/other")
        remove("a")
        remove("b")


@case
def sticky_directories():
    for kind in TYPES:
        for directory in (ALICE, BOB, (0, 0)):
            for entry in (ALICE, BOB, (0, 0)):
                for target in (ALICE, BOB):
                    label = "%s dir %d entry %d target %d" % (kind, directory[0], entry[0], target[0])
                    if not chosen(label):
                        continue
                    os.mkdir("d")
                    os.chmod("d", 0o1777)
                    os.chown("d", directory[0], directory[1])
                    make(kind, "d/x", 0o777, entry)
                    kinds = "dir" if kind == "dir" else "file"
                    make(kinds, "d/t", 0o777, target)
                    make(kinds, "mine", 0o777, ALICE)
                    os.mkdir("free", 0o777)
                    with user(ALICE):
                        t(label + " onto", os.rename, "d/x", "d/t")
                        t(label + " away", os.rename, "d/x", "free/y")
                        t(label + " in", os.rename, "mine", "d/t")
                        t(label + " exchange", rename2, "free", "d/t", 2)
                        t(label + " remove", os.rmdir if kind == "dir" else os.unlink, "d/x")
                        t(label + " remove target", os.rmdir if kind == "dir" else os.unlink, "d/t")
                    for path in ("d", "mine", "free"):
                        remove(path)


@case
def rename_of_directories_needs_write_on_them():
    for mode in (0o755, 0o777, 0o555, 0o700, 0o000):
        for owner in (ALICE, BOB):
            os.mkdir("from", 0o777)
            os.mkdir("to", 0o777)
            make("dir", "from/d", mode, owner)
            with user(ALICE):
                t("%o of %d across" % (mode, owner[0]), os.rename, "from/d", "to/d")
                t("%o of %d within" % (mode, owner[0]), os.rename, "from/d", "from/e")
                os.mkdir("to/mine")
                t("%o of %d exchange" % (mode, owner[0]), rename2, "from/e", "to/mine", 2)
            remove("from")
            remove("to")


@case
def search_and_write_permission():
    calls = {
        "mkdir": lambda p: os.mkdir(p + "/new"), "mkfifo": lambda p: os.mkfifo(p + "/new"),
        "symlink": lambda p: os.symlink("x", p + "/new"), "link": lambda p: os.link("mine", p + "/new"),
        "create": lambda p: os.close(os.open(p + "/new", os.O_CREAT | os.O_WRONLY, 0o644)),
        "create existing": lambda p: os.close(os.open(p + "/file", os.O_CREAT | os.O_RDONLY, 0o644)),
        "tmpfile": lambda p: os.close(os.open(p, os.O_TMPFILE | os.O_RDWR, 0o644)),
        "unlink": lambda p: os.unlink(p + "/file"), "rmdir": lambda p: os.rmdir(p + "/dir"),
        "rename in": lambda p: os.rename("mine", p + "/new"), "rename out": lambda p: os.rename(p + "/file", "out"),
        "stat": lambda p: None if os.stat(p + "/file") else None, "chmod": lambda p: os.chmod(p + "/file", 0o600),
        "open": lambda p: os.close(os.open(p + "/file", os.O_RDONLY)), "chdir": lambda p: os.chdir(p),
        "list": lambda p: len(os.listdir(p)), "truncate": lambda p: os.truncate(p + "/file", 1),
        "unlink missing": lambda p: os.unlink(p + "/missing"), "mkdir existing": lambda p: os.mkdir(p + "/dir"),
        "utime": lambda p: os.utime(p + "/file"), "readlink": lambda p: os.readlink(p + "/link"),
    }
    work = os.getcwd()
    for bits in range(8):
        for place, shift in (("owner", 6), ("group", 3), ("other", 0)):
            for title, call in calls.items():
                if not chosen("%o %s %s" % (bits, place, title)):
                    continue
                os.mkdir("d")
                put("d/file", b"xx", 0o644)
                os.mkdir("d/dir")
                os.symlink("x", "d/link")
                os.chown("d/file", BOB[0], BOB[1])
                with user(BOB):
                    put("mine", b"m")
                owner = BOB[0] if place == "owner" else 0
                os.chown("d", owner, 64003 if place == "group" else 0)
                os.chmod("d", bits << shift)
                with user(BOB):
                    t("%s %o %s" % (place, bits, title), call, "d")
                os.chdir(work)
                for path in ("d", "mine", "out"):
                    remove(path)


@case
def modes_umasks_and_groups_of_new_entries():
    os.mkdir("plain", 0o777)
    os.mkdir("setgid")
    os.chown("setgid", 0, 64003)
    os.chmod("setgid", 0o2777)
    for who in (None, ALICE, BOB):
        for directory in ("plain", "setgid"):
            for mask in (0, 0o22, 0o77, 0o777):
                for mode in (0, 0o777, 0o4755, 0o2755, 0o2745, 0o1777, 0o7777):
                    path = directory + "/x"
                    label = "%s %s %o %o" % (who and who[0], directory, mask, mode)
                    for title, call in (
                        ("open", lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))),
                        ("mkdir", lambda: os.mkdir(path, mode)), ("mkfifo", lambda: os.mkfifo(path, mode)),
                        ("mknod", lambda: os.mknod(path, stat.S_IFREG | mode)),
                        ("socket", lambda: os.mknod(path, stat.S_IFSOCK | mode)),
                        ("tmpfile", lambda: seen(os.open(directory, os.O_TMPFILE | os.O_RDWR, mode))),
                    ):
                        if not chosen(label + title):
                            continue
                        with user(who):
                            os.umask(mask)
                            t("%s %s" % (label, title), call)
                            os.umask(0)
                        show("is", seen(path))
                        remove(path)
                    os.closerange(3, 64)


@case
def long_names_and_paths():
    name = "n" * 255
    calls = {
        "mkdir": os.mkdir, "unlink": os.unlink, "rmdir": os.rmdir, "mkfifo": os.mkfifo,
        "create": lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o644)), "stat": lambda p: seen(p),
        "symlink": lambda p: os.symlink("x", p), "readlink": os.readlink, "rename": lambda p: os.rename("plain", p),
        "rename from": lambda p: os.rename(p, "plain"), "link": lambda p: os.link("plain", p),
        "truncate": lambda p: os.truncate(p, 0), "chmod": lambda p: os.chmod(p, 0o644),
    }
    put("plain")
    deep = "/".join(["d" * 250] * 16)
    os.makedirs(deep)
    for title, call in calls.items():
        for length in (254, 255, 256, 1000):
            t("%s name of %d" % (title, length), call, name[:length] if length < 256 else "n" * length)
        for total in (4094, 4095, 4096, 5000):
            t("%s path of %d" % (title, total), call, deep + "/" * (total - len(deep) - 1) + "f")
        for path in ("n" * 254, name, deep + "/f"):
            remove(path)
        if not os.path.lexists("plain"):
            put("plain")
    for length in (4095, 4096):
        t("symlink to %d" % length, os.symlink, "t" * length, "long%d" % length)


@case
def link_counts():
    put("f")
    for i in range(300):
        os.link("f", "l%d" % i)
    show("links", os.stat("f").st_nlink)
    os.mkdir("d")
    for i in range(40):
        os.mkdir("d/s%d" % i)
    show("subdirectories", os.stat("d").st_nlink)
    for i in range(20):
        os.rename("d/s%d" % i, "m%d" % i)
    show("moved", os.stat("d").st_nlink, os.stat(".").st_nlink)
    os.rename("d/s20", "m0")
    show("replaced", os.stat("d").st_nlink, os.stat(".").st_nlink)
    for i in range(300):
        os.unlink("l%d" % i)
    show("links", os.stat("f").st_nlink)


@case
def working_directory_that_is_gone():
    os.mkdir("gone")
    os.mkdir("kept")
    os.chdir("gone")
    fd = os.open(".", os.O_RDONLY)
    os.rmdir("../gone")
    t("getcwd", lambda: os.getcwd() and None)
    t("list", lambda: len(os.listdir(".")))
    t("list descriptor", lambda: len(os.listdir(fd)))
    t("stat ..", lambda: None if os.stat("..") else None)
    t("open .", lambda: os.close(os.open(".", os.O_RDONLY)))
    for title, call in (
        ("create", lambda: os.close(os.open("x", os.O_CREAT | os.O_WRONLY))), ("mkdir", lambda: os.mkdir("x")),
        ("link", lambda: os.link("../kept/x", "x")), ("rename", lambda: os.rename("../kept", "x")),
        ("symlink", lambda: os.symlink("y", "x")), ("mkfifo", lambda: os.mkfifo("x")),
        ("tmpfile", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))), ("rmdir", lambda: os.rmdir("x")),
        ("unlink", lambda: os.unlink("x")), ("stat", lambda: seen("x")), ("chmod", lambda: os.chmod(".", 0o700)),
        ("fchown", lambda: os.fchown(fd, 1, 2)), ("utime", lambda: os.utime(fd, ns=(1, 2))),
        ("setxattr", lambda: os.setxattr(fd, "user.a", b"v")), ("getxattr", lambda: os.getxattr(fd, "user.a")),
        ("listxattr", lambda: " ".join(os.listxattr(fd))), ("removexattr", lambda: os.removexattr(fd, "user.a")),
        ("fsync", lambda: os.fsync(fd)), ("rmdir .", lambda: os.rmdir(".")),
    ):
        t(title, call)
    show("is", seen(fd))


@case
def files_without_names():
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"content")
    os.link("f", "g")
    os.unlink("f")
    os.unlink("g")
    own = "/proc/self/fd/%d" % fd
    t("open again", lambda: os.read(os.open(own, os.O_RDWR), 100))
    t("open trunc", lambda: os.close(os.open(own, os.O_WRONLY | os.O_TRUNC)))
    show("is", seen(fd))
    t("link back", os.link, own, "h", follow_symlinks=True)
    t("linkat empty path", lambda: checked(libc.linkat(fd, b"", AT_FDCWD, b"h", 0x1000)))
    t("setxattr", os.setxattr, fd, "user.a", b"v")
    t("getxattr", os.getxattr, fd, "user.a")
    t("listxattr", lambda: " ".join(os.listxattr(fd)))
    t("chmod by proc", os.chmod, own, 0o600)
    t("chown by proc", os.chown, own, 1, 2)
    t("utime by proc", os.utime, own, ns=(1, 2))
    t("truncate by proc", os.truncate, own, 5)
    show("is", seen(fd))
    tmp = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(tmp, b"t")
    t("linkat of a temporary file", lambda: checked(libc.linkat(tmp, b"", AT_FDCWD, b"tmp", 0x1000)))
    t("and again", lambda: checked(libc.linkat(tmp, b"", AT_FDCWD, b"tmp2", 0x1000)))
    show("is", seen("tmp"), get("tmp"))
    excl = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o640)
    t("linkat of an exclusive one", lambda: checked(libc.linkat(excl, b"", AT_FDCWD, b"tmp3", 0x1000)))
