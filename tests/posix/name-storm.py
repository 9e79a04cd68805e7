"""Many processes change the names of one tree at random; afterwards the tree must be whole.

Each process also has a directory of its own of which it knows every name. Started as: name-storm.py DIRECTORY SEED
PROCESSES OPERATIONS. Ends with 0, or with 1 and what is wrong.
"""
import errno
import os
import random
import stat
import sys

NAMES = ["a", "b", "c", "d", "e"]
DEPTH = 4
LINE_BYTES = 16
# What may come of a race, or of a name that stands for something else; nothing else may.
# (EPERM: a further link to a directory.)
EXPECTED = {errno.EPERM, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL,
            errno.ELOOP}


def somewhere(chance):
    return os.path.join("shared", *(chance.choice(NAMES) for _ in range(chance.randrange(1, DEPTH + 1))))


def append(path, worker, number):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.write(fd, (b"%4d %9d\n" % (worker, number)).rjust(LINE_BYTES))
    finally:
        os.close(fd)


def change(chance, worker, number):
    kind = chance.randrange(16)
    path = somewhere(chance)
    if kind < 3:
        append(path, worker, number)
    elif kind < 6:
        os.mkdir(path)
    elif kind == 6:
        os.symlink(chance.choice(NAMES), path)
    elif kind == 7:
        os.link(path, somewhere(chance), follow_symlinks=False)
    elif kind < 11:
        os.rename(path, somewhere(chance))
    elif kind == 11:
        os.rmdir(path)
    elif kind == 12:
        os.unlink(path)
    elif kind == 13:
        os.chmod(path, chance.choice([0o700, 0o755, 0o775]))
    elif kind == 14:
        os.listdir(path)
    else:
        os.setxattr(path, "user.storm", b"%d" % number, follow_symlinks=True)


def own_change(chance, own, known, number):
    """Of a directory that nobody else changes every outcome is known."""
    name, other = str(chance.randrange(30)), str(chance.randrange(30))
    path = os.path.join(own, name)
    kind = chance.randrange(4)
    try:
        if kind == 0:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            expected = name not in known
            known.add(name)
        elif kind == 1:
            os.unlink(path)
            expected = name in known
            known.discard(name)
        elif kind == 2:
            os.rename(path, os.path.join(own, other))
            expected = name in known
            known.discard(name)
            known.add(other)
        else:
            expected = sorted(os.listdir(own)) == sorted(known)
    except OSError as error:
        expected = {0: error.errno == errno.EEXIST and name in known,
                    1: error.errno == errno.ENOENT and name not in known,
                    2: error.errno == errno.ENOENT and name not in known, 3: False}[kind]
    if not expected:
        raise AssertionError("operation %d, kind %d on %s: not what %s says" % (number, kind, path, sorted(known)))


def work(seed, worker, operations):
    chance = random.Random(seed * 1000 + worker)
    own = "own-%d" % worker
    os.mkdir(own)
    known = set()
    for number in range(operations):
        if number % 3 == 0:
            own_change(chance, own, known, number)
            continue
        try:
            change(chance, worker, number)
        except OSError as error:
            if error.errno not in EXPECTED:
                raise
    if sorted(os.listdir(own)) != sorted(known):
        raise AssertionError("%s holds %s, not %s" % (own, sorted(os.listdir(own)), sorted(known)))


def check():
    """The whole tree: links are counted right, what is listed is there, files hold whole lines."""
    found = {}
    problems = []

    def visit(path):
        directories = 0
        for entry in os.scandir(path):
            s = os.lstat(entry.path)
            if s.st_ino != entry.inode():
                problems.append("%s: listed as inode %d, is %d" % (entry.path, entry.inode(), s.st_ino))
            if stat.S_ISDIR(s.st_mode):
                directories += 1
                visit(entry.path)
                continue
            found.setdefault(s.st_ino, (s.st_nlink, []))[1].append(entry.path)
            if stat.S_ISREG(s.st_mode):
                with open(entry.path, "rb") as file:
                    content = file.read()
                if len(content) != s.st_size or len(content) % LINE_BYTES or \
                        any(content[at + LINE_BYTES - 1] != 10 for at in range(0, len(content), LINE_BYTES)):
                    problems.append("%s: %d bytes that are not whole lines" % (entry.path, len(content)))
        if os.stat(path).st_nlink != directories + 2:
            problems.append("%s: %d links, %d directories" % (path, os.stat(path).st_nlink, directories))

    visit(".")
    for links, paths in found.values():
        if links != len(paths):
            problems.append("%s: %d links" % (paths, links))
    return problems


def main():
    directory, (seed, processes, operations) = sys.argv[1], map(int, sys.argv[2:5])
    os.umask(0)
    os.chdir(directory)
    tree = "name-storm-%d" % seed
    os.mkdir(tree)
    os.chdir(tree)
    os.mkdir("shared")
    children = []
    for worker in range(processes):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(seed, worker, operations)
                code = 0
            except (AssertionError, OSError) as error:
                print("seed %d, process %d: %r" % (seed, worker, error), flush=True)
            finally:
                os._exit(code)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    problems = check()
    for problem in problems[:20]:
        print("seed %d: %s" % (seed, problem))
    if failed or problems:
        sys.exit(1)
    os.chdir("..")
    if os.spawnlp(os.P_WAIT, "rm", "rm", "-r", tree):
        sys.exit(1)


main()
