"""What the matrix stands on: cases that print one line for each call, so that two file systems can be compared.

A line holds no inode number, no time of day and no path of this machine: the same calls on a second file system must
print the same lines. Everything works in one process as root, which takes other users' ids for single calls.
"""
import ctypes
import errno
import os
import shutil
import signal
import socket
import stat
import sys
import time
import zlib

ALICE = (64001, 64001, ())
BOB = (64002, 64002, (64003,))
TYPES = ("file", "dir", "fifo", "block", "char", "socket", "symlink")
libc = ctypes.CDLL(None, use_errno=True)
PART = int(os.environ.get("HOLDFAST_MATRIX_PART", "1"))
# The same directory on another mount: there it is prepared, looked at and cleared away; the calls are made here.
ELSEWHERE = os.environ.get("HOLDFAST_MATRIX_ELSEWHERE")
CASES = []
top = ""


def elsewhere(function):
    """Makes a function that takes a path work in the present directory as the other mount has it."""
    def there(*args, **more):
        try:
            here = os.getcwd()
        except FileNotFoundError:
            here = "/"
        if isinstance(args[0], int) or not (here + "/").startswith(top + "/"):
            return function(*args, **more)
        back = os.open(".", os.O_PATH)
        os.chdir(ELSEWHERE + here[len(top):])
        try:
            return function(*args, **more)
        finally:
            os.fchdir(back)
            os.close(back)
    return there if ELSEWHERE else function


def case(function):
    CASES.append(function)
    return function


def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "call")
    return result


def outcome(call, *args, **more):
    """"ok", what the call says (text or number), or the name of its error."""
    try:
        value = call(*args, **more)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    except ValueError as error:
        return "ValueError %s" % error
    return "ok" if value is None else value


def show(label, *values):
    print("  %s: %s" % (label, " ".join(str(value) for value in values)))


def t(label, call, *args, **more):
    show(label, outcome(call, *args, **more))


def chosen(label):
    """Whether a case out of very many is made now: HOLDFAST_MATRIX_PART=20 makes each twentieth, 1 (the default) all."""
    return zlib.crc32(label.encode()) % PART == 0


class user:
    """Within it, calls are made with this user's ids (None: root's)."""

    def __init__(self, who):
        self.who = who

    def __enter__(self):
        if self.who:
            os.setgroups(list(self.who[2]))
            os.setegid(self.who[1])
            os.seteuid(self.who[0])

    def __exit__(self, *_):
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def make(kind, path, mode=0o644, owner=None):
    made(path, kind, mode, owner)


@elsewhere
def made(path, kind, mode, owner):
    if kind == "file":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    elif kind == "dir":
        os.mkdir(path, mode)
    elif kind == "fifo":
        os.mkfifo(path, mode)
    elif kind == "block":
        os.mknod(path, stat.S_IFBLK | mode, os.makedev(7, 250))
    elif kind == "char":
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3))
    elif kind == "socket":
        one = socket.socket(socket.AF_UNIX)
        one.bind(path)
        one.close()
    else:
        os.symlink("nowhere", path)
    if kind != "symlink" and mode is not None:
        os.chmod(path, mode)
    if owner is not None:
        os.lchown(path, owner[0], owner[1])


@elsewhere
def remove(path):
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


@elsewhere
def put(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(fd, data)
    os.close(fd)
    os.chmod(path, mode)


@elsewhere
def get(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


KIND = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


@elsewhere
def seen(path):
    """Type, mode, links, owner, group and size (not of directories)."""
    try:
        s = os.lstat(path) if not isinstance(path, int) else os.fstat(path)
    except OSError as error:
        return errno.errorcode[error.errno]
    size = "-" if stat.S_ISDIR(s.st_mode) else s.st_size
    return "%s %o links %d %d:%d size %s rdev %d" % (
        KIND[stat.S_IFMT(s.st_mode)], stat.S_IMODE(s.st_mode), s.st_nlink, s.st_uid, s.st_gid, size, s.st_rdev)


def tick():
    """Ends when the clock that file times are taken from has moved on, twice."""
    for _ in range(2):
        start = time.clock_gettime_ns(5)
        while time.clock_gettime_ns(5) == start:
            time.sleep(0.001)


def times_of(path):
    s = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)


def touched(label, paths, call, *args, **more):
    """Prints what the call says, and which times of each path it changed."""
    before = {path: times_of(path) for path in paths}
    tick()
    said = outcome(call, *args, **more)
    changes = []
    for path in paths:
        try:
            after = times_of(path)
        except OSError as error:
            changes.append(errno.errorcode[error.errno])
            continue
        names = [name for name, one, two in zip("amc", before[path], after) if one != two]
        changes.append("".join(names) or "-")
    show(label, said, *changes)


def in_child(call):
    """Runs in a process of its own; its exit status or signal is the value, errors are numbers beyond 100."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = call() or 0
        except OSError as error:
            code = 100 + error.errno
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return errno.errorcode.get(code - 100, code) if code > 100 else code


def run(directory, wanted):
    global top
    os.umask(0)
    os.chdir(directory)
    top = os.getcwd()
    for index, one in enumerate(CASES):
        if wanted and not any(word in one.__name__ for word in wanted):
            continue
        work = "%s/m%d" % (top, index)
        os.mkdir(work, 0o777)
        os.chdir(work)
        print(one.__name__)
        try:
            one()
        except Exception as error:  # A case that breaks off shows it as a difference, and the others go on.
            print("  broke off: %r" % (error,))
        os.closerange(3, 256)
        os.umask(0)
        os.chdir(top)
        sys.stdout.flush()
        shutil.rmtree(work, ignore_errors=True)
