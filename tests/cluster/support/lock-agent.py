"""Opens a file and does with it and its locks what each line of the input says; answers each with one line."""
import errno, fcntl, os, struct, sys

FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
TYPES = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
NAMES = {value: name for name, value in TYPES.items()}
files = {}


def record(kind, start, length, pid=0):
    return struct.pack(FLOCK, TYPES[kind], os.SEEK_SET, int(start), int(length), pid)


def run(words):
    op, handle, rest = words[0], words[1], words[2:]
    if op == "open":
        files[handle] = os.open(rest[0], os.O_RDWR | os.O_CREAT, 0o666)
    elif op == "close":
        os.close(files.pop(handle))
    elif op in ("set", "wait", "ofd", "ofdwait"):
        command = {"set": fcntl.F_SETLK, "wait": fcntl.F_SETLKW, "ofd": OFD_SETLK, "ofdwait": OFD_SETLKW}[op]
        fcntl.fcntl(files[handle], command, record(*rest))
    elif op == "get":
        kind, _, start, length, pid = struct.unpack(FLOCK, fcntl.fcntl(files[handle], fcntl.F_GETLK, record(*rest)))
        return "free" if kind == fcntl.F_UNLCK else "%s %d %d %d" % (NAMES[kind], start, length, pid)
    elif op == "flock":
        modes = {"r": fcntl.LOCK_SH, "w": fcntl.LOCK_EX, "u": fcntl.LOCK_UN}
        fcntl.flock(files[handle], modes[rest[0]] | (0 if rest[1:] == ["wait"] else fcntl.LOCK_NB))
    elif op == "write":
        os.pwrite(files[handle], rest[0].encode(), 0)
    elif op == "read":
        return os.pread(files[handle], 100, 0).decode()
    elif op == "pid":
        return str(os.getpid())
    return "ok"


for line in sys.stdin:
    try:
        answer = run(line.split())
    except OSError as error:
        answer = "EDEADLK" if error.errno == errno.EDEADLK else errno.errorcode[error.errno]
    print(answer, flush=True)
