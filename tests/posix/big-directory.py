"""Makes a directory of very many entries and lists it while others make and remove names in it: every name that stays must
be met exactly once. Prints one JSON line for each step. Started as: big-directory.py DIRECTORY ENTRIES [PROCESSES]
"""
import json
import os
import sys
import time

top, entries = sys.argv[1], int(sys.argv[2])
processes = int(sys.argv[3]) if len(sys.argv) > 3 else 4
CHURN_NAMES = 64


def say(step, **values):
    print(json.dumps({"step": step, **values}), flush=True)


def name_of(number):
    return "entry-%07d" % number


def children(count, work):
    """Runs work(i) in processes of their own; all must end well."""
    made = []
    for index in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(index)
                code = 0
            finally:
                os._exit(code)
        made.append(child)
    return made


def reap(made):
    for child in made:
        _, status = os.waitpid(child, 0)
        assert status == 0, "a process failed: %d" % status


def make(index):
    for number in range(index, entries, processes):
        os.mknod("%s/%s" % (top, name_of(number)), 0o100644)


def churn(stop):
    """Other names come and go; the names that stay are never touched."""
    turn = 0
    while not os.path.exists(stop):
        for number in range(CHURN_NAMES):
            os.mknod("%s/other-%d-%d" % (top, turn, number), 0o100644)
        for number in range(CHURN_NAMES):
            os.unlink("%s/other-%d-%d" % (top, turn, number))
        turn += 1


def listed():
    """How often each name that stays was met. @returns [missing, doubled, strangers]"""
    met = bytearray(entries)
    strangers = 0
    with os.scandir(top) as found:
        for entry in found:
            if entry.name.startswith("entry-"):
                met[int(entry.name[6:])] += 1
            elif not entry.name.startswith("other-"):
                strangers += 1
    return [met.count(0), entries - met.count(0) - met.count(1), strangers]


def main():
    start = time.monotonic()
    os.mkdir(top)
    reap(children(processes, make))
    say("made", seconds=round(time.monotonic() - start, 1))
    start = time.monotonic()
    say("listed", wrong=listed(), seconds=round(time.monotonic() - start, 1))
    stop = top + ".stop"
    churning = children(1, lambda _: churn(stop))
    start = time.monotonic()
    say("listed while others change it", wrong=listed(), seconds=round(time.monotonic() - start, 1))
    os.close(os.open(stop, os.O_CREAT | os.O_WRONLY))
    reap(churning)
    os.unlink(stop)
    os.unlink("%s/%s" % (top, name_of(0)))
    os.rename("%s/%s" % (top, name_of(1)), "%s/%s" % (top, name_of(0)))
    left = listed()
    say("after an unlink and a rename", wrong=[left[0] - 1, left[1], left[2]])


main()
