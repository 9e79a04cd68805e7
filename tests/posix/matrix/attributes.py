"""Attributes: who may change them, what else changes with them, and what becomes of setuid and setgid."""
import ctypes
import os
import shutil
import subprocess

from bench import (ALICE, BOB, TYPES, case, checked, chosen, in_child, libc, make, outcome, put, remove, seen, show, t,
                   touched, user)

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


def utimens(path, atime, mtime, nofollow=False):
    class Timespec(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_int64)]

    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    if isinstance(path, int):
        checked(libc.futimens(path, times))
    else:
        checked(libc.utimensat(-100, os.fsencode(path), times, 0x100 if nofollow else 0))


@case
def chmod_by_everybody():
    for kind in TYPES[:-1]:
        for owner, group in ((0, 0), (ALICE[0], ALICE[1]), (ALICE[0], 64003), (BOB[0], 64003), (BOB[0], 0)):
            for mode in (0, 0o777, 0o4755, 0o2755, 0o2644, 0o1777, 0o7777):
                for who in (None, ALICE, BOB):
                    label = "%s %d:%d %o by %s" % (kind, owner, group, mode, who and who[0])
                    if not chosen(label):
                        continue
                    make(kind, "x", 0o755, (owner, group))
                    with user(who):
                        touched(label, ("x",), os.chmod, "x", mode)
                    show("is", seen("x"))
                    remove("x")


@case
def chown_by_everybody():
    for kind in TYPES:
        for mode in (0o755, 0o6755, 0o6745, 0o7777):
            for owner, group in ((0, 0), (ALICE[0], ALICE[1]), (BOB[0], BOB[1]), (BOB[0], 64003)):
                for to in ((-1, -1), (ALICE[0], -1), (-1, 64003), (BOB[0], 64003), (BOB[0], BOB[1]), (0, 0), (-1, 0)):
                    for who in (None, ALICE, BOB):
                        label = "%s %o %d:%d to %d:%d by %s" % (kind, mode, owner, group, *to, who and who[0])
                        if not chosen(label):
                            continue
                        make(kind, "x", mode, (owner, group))
                        if kind != "symlink":
                            os.chmod("x", mode)
                        with user(who):
                            t(label, os.lchown, "x", *to)
                        show("is", seen("x"))
                        remove("x")


@case
def times_of_chown_and_chmod():
    put("f")
    for to in ((-1, -1), (1, -1), (-1, 2), (1, 2)):
        touched("chown %d %d" % to, ("f", "."), os.chown, "f", *to)
        with user(ALICE):
            touched("chown %d %d by alice" % to, ("f", "."), os.chown, "f", *to)
    touched("chmod same", ("f", "."), os.chmod, "f", 0o644)
    with user(ALICE):
        touched("chmod by alice", ("f", "."), os.chmod, "f", 0o600)
    fd = os.open("f", os.O_RDONLY)
    touched("fchmod", ("f",), os.fchmod, fd, 0o600)
    touched("fchown", ("f",), os.fchown, fd, 5, 6)


@case
def utimensat_by_everybody():
    values = {"now": (0, NOW), "omit": (0, OMIT), "past": (1000, 5), "before 1970": (-5, 999999999),
              "far": (2 ** 33, 1)}
    for kind in ("file", "dir", "fifo", "symlink"):
        for mode in (0o600, 0o644, 0o666, 0o444, 0):
            for owner in (ALICE, BOB):
                for who in (None, ALICE):
                    for a, atime in values.items():
                        for m, mtime in values.items():
                            label = "%s %o of %d by %s: %s %s" % (kind, mode, owner[0], who and who[0], a, m)
                            if not chosen(label):
                                continue
                            make(kind, "x", mode, owner)
                            with user(who):
                                touched(label, ("x",), utimens, "x", atime, mtime, True)
                            s = os.lstat("x")
                            show("is", *[n if n < 10 ** 18 or n > 4 * 10 ** 18 else "now"
                                         for n in (s.st_atime_ns, s.st_mtime_ns)])
                            remove("x")
    put("x")
    for nsec in (-1, 10 ** 9, NOW + 1, OMIT - 1):
        t("nanoseconds %d" % nsec, utimens, "x", (0, nsec), (0, 0))
        t("nanoseconds %d" % nsec, utimens, "x", (0, 0), (0, nsec))
        t("omitted missing", utimens, "missing", (0, OMIT), (0, OMIT))
    for sec in (1 << 40, 1 << 60, -(1 << 60), (1 << 63) - 1, -(1 << 63)):
        # Times that no file system keeps are cut to what it does.
        t("%d seconds" % sec, utimens, "x", (sec, 0), (sec, 0))
    fd = os.open("x", os.O_RDONLY)
    os.chmod("x", 0)
    with user(ALICE):
        t("futimens now by alice", utimens, fd, (0, NOW), (0, NOW))
        t("futimens by alice", utimens, fd, (0, 1), (0, 1))


@case
def setuid_and_setgid_after_writes():
    ways = {
        "write": lambda p: os.write(os.open(p, os.O_WRONLY), b"y"),
        "write of nothing": lambda p: os.write(os.open(p, os.O_WRONLY), b""),
        "append": lambda p: os.write(os.open(p, os.O_WRONLY | os.O_APPEND), b"y"),
        "pwritev": lambda p: os.pwritev(os.open(p, os.O_WRONLY), [b"y", b"z"], 5),
        "truncate": lambda p: os.truncate(p, 1), "truncate to the same": lambda p: os.truncate(p, 4),
        "ftruncate": lambda p: os.ftruncate(os.open(p, os.O_WRONLY), 9),
        "open trunc": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
        "fallocate": lambda p: os.posix_fallocate(os.open(p, os.O_WRONLY), 0, 100),
        "link": lambda p: os.link(p, "l"), "rename": lambda p: os.rename(p, "l"),
        "utime": lambda p: os.utime(p), "setxattr": lambda p: os.setxattr(p, "user.a", b"v"),
        "copy_file_range": lambda p: os.copy_file_range(os.open("s", os.O_RDONLY), os.open(p, os.O_WRONLY), 3),
        "sendfile": lambda p: os.sendfile(os.open(p, os.O_WRONLY), os.open("s", os.O_RDONLY), 0, 3),
    }
    os.mkdir("w", 0o777)
    os.chdir("w")
    put("s", b"source")
    for title, way in ways.items():
        for mode in (0o4777, 0o2777, 0o6777, 0o6767, 0o6666, 0o7777):
            for owner in ((0, 0), (BOB[0], BOB[1]), (BOB[0], 64003)):
                for who in (None, BOB):
                    label = "%s %o %d:%d by %s" % (title, mode, *owner, who and who[0])
                    if not chosen(label):
                        continue
                    put("f", b"four")
                    os.chown("f", *owner)
                    os.chmod("f", mode)
                    with user(who):
                        t(label, way, "f")
                    show("is", seen("f"), seen("l"))
                    os.closerange(3, 64)
                    remove("f")
                    remove("l")


@case
def access_of_everybody():
    for kind in TYPES[:-1]:
        for bits in range(8):
            for owner, group, shift in ((BOB[0], 0, 6), (0, 64003, 3), (0, 0, 0)):
                if not chosen("%s %o %d" % (kind, bits, shift)):
                    continue
                make(kind, "x", bits << shift, (owner, group))
                line = []
                for who in (None, ALICE, BOB):
                    with user(who):
                        line.append("".join("y" if os.access("x", mask, effective_ids=True) else "n"
                                            for mask in range(1, 8)))
                show("%s %o %d:%d" % (kind, bits << shift, owner, group), *line)
                remove("x")


@case
def executing():
    put("s", b"#!/bin/sh\nexit 7\n", 0o755)
    for mode in (0o755, 0o644, 0o111, 0o100):
        os.chmod("s", mode)
        for who in (None, ALICE):
            def run():
                with user(who):
                    return subprocess.call(["./s"], stderr=subprocess.DEVNULL)
            show("%o by %s" % (mode, who and who[0]), in_child(run))
    shutil.copy("/bin/sleep", "binary")
    os.chmod("binary", 0o755)
    child = subprocess.Popen(["./binary", "100"])
    t("write to what runs", lambda: os.close(os.open("binary", os.O_WRONLY)))
    t("truncate what runs", os.truncate, "binary", 0)
    t("open trunc of what runs", lambda: os.close(os.open("binary", os.O_RDWR | os.O_TRUNC)))
    t("unlink what runs", os.unlink, "binary")
    child.kill()
    child.wait()
    shutil.copy("/bin/sleep", "binary")
    os.chmod("binary", 0o755)
    fd = os.open("binary", os.O_WRONLY)
    show("run what is open for writing", outcome(lambda: subprocess.call(["./binary", "0"])))
    os.close(fd)
    show("run it", outcome(lambda: subprocess.call(["./binary", "0"])))

