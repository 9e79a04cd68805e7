"""On one mount removes and makes a directory again, while another mount exchanges it with its sister all the time.

The sister, which nobody removes and which is in use here (open), must take a new name behind each removal: the kernel
must not have marked it dead in the other's place. Started as: exchanged-directories.py DIRECTORY SAME_ELSEWHERE REMOVALS.
Prints how often the sister took no name; fails when it was not exchanged meanwhile.
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


def remove(path):
    """The kernel repeats a call that was refused because of an exchange once; then its caller has to."""
    for _ in range(ATTEMPTS_MAX):
        try:
            return os.rmdir(path)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    raise TimeoutError("not removed")


def takes_no_name(directory):
    try:
        os.mkdir(os.path.join(directory, "name"))
    except FileNotFoundError:
        return True
    os.rmdir(os.path.join(directory, "name"))
    return False


def main():
    here, elsewhere, removals = sys.argv[1], sys.argv[2], int(sys.argv[3])
    a, b = os.path.join(here, "a"), os.path.join(here, "b")
    for path in (a, b):
        os.mkdir(path)
    reports, report = os.pipe()
    other = os.fork()
    if other == 0:
        exchange_until_killed(elsewhere, report)
    dead = exchanged = 0
    try:
        for _ in range(removals):
            exchanged += len(os.read(reports, 1 << 16))
            in_use = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (a, b)]
            remove(a)
            dead += takes_no_name(b)
            for fd in in_use:
                os.close(fd)
            os.mkdir(a)
    finally:
        os.kill(other, 9)
        os.waitpid(other, 0)
    if exchanged < removals:
        sys.exit("only %d exchanges" % exchanged)
    print("%d dead" % dead)


main()
