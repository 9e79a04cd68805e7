"""Makes calls while a timer's signal arrives all the time: none of them may tell, as none can be interrupted on a disk.

A call that ends with EINTR, or that was made although it ended so, is told by its outcome. Started as:
signal-storm.py DIRECTORY ROUNDS. Ends with 0, or with 1 and the first call that failed.
"""
import os
import signal
import sys

INTERVAL_S = 0.001


def one_round(number):
    yield "mkdir", lambda: os.mkdir("d")
    yield "create", lambda: os.close(os.open("d/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    yield "chmod", lambda: os.chmod("d/f", 0o640)
    yield "chown", lambda: os.chown("d/f", number, number)
    yield "utime", lambda: os.utime("d/f", (number, number))
    yield "setxattr", lambda: os.setxattr("d/f", "user.number", b"%d" % number, os.XATTR_CREATE)
    yield "link", lambda: os.link("d/f", "d/g")
    yield "rename", lambda: os.rename("d/g", "h")
    yield "symlink", lambda: os.symlink("h", "d/s")
    yield "mknod", lambda: os.mknod("d/p", 0o010600)
    yield "truncate", lambda: os.truncate("h", 4096)
    yield "listdir", lambda: sorted(os.listdir("d")) == ["f", "p", "s"] or wrong("names")
    yield "stat", lambda: os.stat("h").st_nlink == 2 or wrong("links")
    for path in ("d/f", "d/s", "d/p", "h"):
        yield "unlink " + path, lambda path=path: os.unlink(path)
    yield "rmdir", lambda: os.rmdir("d")


def wrong(what):
    raise OSError("other " + what + " than were made")


def main():
    os.chdir(sys.argv[1])
    signals = [0]

    def count(*_):
        signals[0] += 1

    signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL_S, INTERVAL_S)
    for number in range(int(sys.argv[2])):
        for name, call in one_round(number):
            try:
                call()
            except OSError as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                print("round %d, %s: %s" % (number, name, error))
                sys.exit(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if signals[0] == 0:
        wrong("signals")


main()
