"""starved-lookups.py ONE OTHER ROUNDS: a directory on two mounts; prints what was seen of a name that the other mount moved away.

Threads on the first mount that look the name up get little of a processor: they take in what they were answered late.
"""
import mmap
import os
import random
import sys
import time

one, other, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
LOOKERS = 3
WINDOW_S = 0.004
ended = mmap.mmap(-1, 1)
processors = sorted(os.sched_getaffinity(0))
parent = os.getpid()


def seen(path):
    try:
        os.stat(path)
        return True
    except FileNotFoundError:
        return False


def goes_on():
    return ended[0] == 0 and os.getppid() == parent


def busy():
    while goes_on():
        pass


def look():
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while goes_on():
        seen(f"{one}/name")


def child(run):
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, processors[:1])
            run()
        finally:
            os._exit(0)
    return pid


open(f"{other}/name", "w").close()
children = [child(busy), *[child(look) for _ in range(LOOKERS)]]
os.sched_setaffinity(0, processors[-1:])
chance = random.Random(5)
stale = missed = 0
for n in range(rounds):
    os.chmod(f"{other}/name", 0o600 + n % 8)
    until = time.monotonic() + chance.random() * WINDOW_S
    while time.monotonic() < until:
        pass
    os.rename(f"{other}/name", f"{other}/moved")
    stale += seen(f"{one}/name")
    os.rename(f"{other}/moved", f"{other}/name")
    missed += not seen(f"{one}/name")
ended[0] = 1
for pid in children:
    os.waitpid(pid, 0)
print(f"{stale} stale, {missed} missed")
