"""On one mount takes a directory from its place, again and again, while another mount exchanges it with its sister all the time.

Which of the two is taken is left to chance. The other one, which nobody removes, is in use here (open), and must take a new
name afterwards: the kernel must not have marked it dead in the other's place. Started as: exchanged-directories.py HOW
DIRECTORY SAME_ELSEWHERE TIMES, where HOW is "remove", or "replace" by a rename of a new directory. Prints how often neither
took a name; fails when they were not exchanged meanwhile.
"""
import ctypes
import errno
import os
import sys

AT_FDCWD = -100
RENAME_EXCHANGE = 2
# Beyond it the machine is too busy for this.
ATTEMPTS_MAX = 20


def exchange_until_killed(directory, report):
    libc = ctypes.CDLL(None)
    a, b = (os.path.join(directory, name).encode() for name in "ab")
    while True:
        if libc.renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0:
            os.write(report, b"x")


def patiently(call, *arguments):
    """The kernel repeats a call that was refused because of an exchange once; then its caller has to."""
    for _ in range(ATTEMPTS_MAX):
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    raise TimeoutError("refused again and again")


def open_both(a, b):
    """Both directories, not one of them twice."""
    while True:
        both = [patiently(os.open, path, os.O_RDONLY | os.O_DIRECTORY) for path in (a, b)]
        if os.fstat(both[0]).st_ino != os.fstat(both[1]).st_ino:
            return both
        for fd in both:
            os.close(fd)


def remove(a):
    patiently(os.rmdir, a)


def replace(a):
    new = a + ".new"
    os.mkdir(new)
    patiently(os.rename, new, a)


def takes_a_name(directory):
    try:
        os.mkdir("name", dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    os.rmdir("name", dir_fd=directory)
    return True


def main():
    how, here, elsewhere, times = {"remove": remove, "replace": replace}[sys.argv[1]], *sys.argv[2:4], int(sys.argv[4])
    a, b = os.path.join(here, "a"), os.path.join(here, "b")
    for path in (a, b):
        os.mkdir(path)
    reports, report = os.pipe()
    other = os.fork()
    if other == 0:
        exchange_until_killed(elsewhere, report)
    dead = exchanged = 0
    try:
        for _ in range(times):
            exchanged += len(os.read(reports, 1 << 16))
            in_use = open_both(a, b)
            how(a)
            dead += not any([takes_a_name(fd) for fd in in_use])
            for fd in in_use:
                os.close(fd)
            if how == remove:
                os.mkdir(a)
    finally:
        os.kill(other, 9)
        os.waitpid(other, 0)
    if exchanged < times:
        sys.exit("only %d exchanges" % exchanged)
    print("%d dead" % dead)


main()
