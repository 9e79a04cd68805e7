"""Random operations on one file, each checked against the same bytes in memory.

Reads, writes, appends, truncates, stores through mappings, holes, zeroed ranges, copies within the file, syncs and new
opens, around the border of two chunks. Started as: file-storm.py DIRECTORY SEED OPERATIONS. Ends with 0, or with 1 and
the first difference with the operations before it.
"""
import ctypes
import errno
import mmap
import os
import random
import sys

WINDOW_BYTES = 1 << 20
CHUNK_BYTES = 4 << 20
PAGE_BYTES = 4096
DIRECT_BYTES = 4096
SHOWN_OPERATIONS = 25
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)


class Storm:
    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.path = os.path.join(directory, "storm-%d" % seed)
        # The window lies at the beginning, across a border of chunks, or far out in a sparse file.
        self.base = self.random.choice([0, CHUNK_BYTES - WINDOW_BYTES // 2, (1 << 40) - WINDOW_BYTES // 2])
        self.model = bytearray()
        self.log = []
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        if self.base:
            os.ftruncate(self.fd, self.base)

    # Offsets of the operations are within the window: `at`; of the calls within the file: `self.base + at`.

    def place(self, most=WINDOW_BYTES, within=False):
        limit = len(self.model) if within else WINDOW_BYTES
        at = self.random.randrange(limit + 1)
        if self.random.random() < 0.3:
            at -= at % PAGE_BYTES
        length = self.random.choice([1, 7, 100, PAGE_BYTES, 10_000, 70_000, 300_000])
        length = self.random.randrange(1, length + 1) if self.random.random() < 0.7 else length
        return at, max(0, min(length, limit - at, most))

    def data(self, length):
        start = self.random.randrange(256)
        return (bytes((start + i) & 255 for i in range(251)) * (length // 251 + 1))[:length]

    def put(self, at, data):
        if len(self.model) < at:
            self.model.extend(bytes(at - len(self.model)))
        self.model[at:at + len(data)] = data

    def resize(self, size):
        if size < len(self.model):
            del self.model[size:]
        else:
            self.model.extend(bytes(size - len(self.model)))

    def equal(self, got, at, what):
        want = bytes(self.model[at:at + len(got)])
        if got == want:
            return
        first = next(i for i in range(len(got)) if i >= len(want) or got[i] != want[i])
        differing = sum(1 for a, b in zip(got, want) if a != b)
        raise AssertionError("%s at %d: byte %d is %d, not %s; %d of %d bytes differ" % (
            what, at, at + first, got[first], want[first] if first < len(want) else "beyond the end",
            differing, len(got)))

    def read(self):
        at, length = self.place()
        got = os.pread(self.fd, length, self.base + at)
        want = max(0, min(length, len(self.model) - at))
        if len(got) != want:
            raise AssertionError("read of %d at %d gave %d bytes, not %d" % (length, at, len(got), want))
        self.equal(got, at, "read")
        return at, length

    def read_below(self):
        """The hole before the window."""
        if self.base:
            at = self.random.randrange(self.base)
            if os.pread(self.fd, 100, at)[:self.base - at].strip(b"\0"):
                raise AssertionError("the hole at %d has data" % at)

    def write(self):
        at, length = self.place()
        data = self.data(length)
        if os.pwrite(self.fd, data, self.base + at) != length:
            raise AssertionError("short write")
        if length:
            self.put(at, data)
        return at, length

    def write_vector(self):
        at, length = self.place()
        parts = [self.data(length // 3), self.data(length // 5), b"", self.data(1)]
        data = b"".join(parts)
        if at + len(data) <= WINDOW_BYTES:
            os.pwritev(self.fd, parts, self.base + at)
            self.put(at, data)
        return at, len(data)

    def append(self):
        data = self.data(self.random.randrange(1, 20_000))
        if len(self.model) + len(data) > WINDOW_BYTES:
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.model += data
        return len(data)

    def truncate(self):
        size, _ = self.place()
        if self.random.random() < 0.5:
            os.ftruncate(self.fd, self.base + size)
        else:
            os.truncate(self.path, self.base + size)
        self.resize(size)
        return size

    def mapped(self):
        at, length = self.place(within=True)
        if length == 0:
            return None
        start = (self.base + at) & ~(PAGE_BYTES - 1)
        skip = self.base + at - start
        return at, length, skip, mmap.mmap(self.fd, skip + length, mmap.MAP_SHARED, offset=start)

    def map_read(self):
        place = self.mapped()
        if place:
            at, length, skip, memory = place
            self.equal(memory[skip:skip + length], at, "read of a mapping")
            memory.close()
            return at, length

    def map_write(self):
        place = self.mapped()
        if place:
            at, length, skip, memory = place
            data = self.data(length)
            memory[skip:skip + length] = data
            if self.random.random() < 0.5:
                memory.flush()
            memory.close()
            self.put(at, data)
            return at, length

    def direct(self):
        """A read or a write with O_DIRECT, of whole blocks."""
        at, length = self.place()
        at -= (self.base + at) % DIRECT_BYTES
        length -= length % DIRECT_BYTES
        if at < 0 or length == 0:
            return
        fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        memory = mmap.mmap(-1, length)
        try:
            if self.random.random() < 0.5:
                memory[:] = self.data(length)
                os.pwritev(fd, [memory], self.base + at)
                self.put(at, memory[:])
            else:
                count = os.preadv(fd, [memory], self.base + at)
                self.equal(memory[:count], at, "direct read")
        finally:
            os.close(fd)
        return at, length

    def allocate(self, mode, at, length):
        if libc.fallocate(self.fd, mode, ctypes.c_int64(self.base + at), ctypes.c_int64(length)):
            code = ctypes.get_errno()
            if code == errno.EOPNOTSUPP:
                return False
            raise OSError(code, "fallocate %d" % mode)
        return True

    def fallocate(self):
        at, length = self.place()
        keep = self.random.random() < 0.5
        if length and self.allocate(KEEP_SIZE if keep else 0, at, length) and not keep:
            self.resize(max(len(self.model), at + length))
        return at, length, keep

    def punch(self):
        at, length = self.place()
        if length and self.allocate(PUNCH_HOLE | KEEP_SIZE, at, length):
            end = min(at + length, len(self.model))
            if end > at:
                self.model[at:end] = bytes(end - at)
        return at, length

    def zero(self):
        at, length = self.place()
        keep = self.random.random() < 0.5
        if length and self.allocate(ZERO_RANGE | (KEEP_SIZE if keep else 0), at, length):
            end = min(at + length, len(self.model)) if keep else at + length
            if end > at:
                self.put(at, bytes(end - at))
        return at, length, keep

    def copy(self):
        at, length = self.place(within=True)
        to, room = self.place()
        length = min(length, room)
        if length == 0 or abs(to - at) < length:
            return
        done = 0
        while done < length:
            count = os.copy_file_range(self.fd, self.fd, length - done, self.base + at + done, self.base + to + done)
            if count == 0:
                raise AssertionError("copy_file_range ended after %d of %d" % (done, length))
            done += count
        self.put(to, bytes(self.model[at:at + length]))
        return at, to, length

    def sync(self):
        kind = self.random.randrange(4)
        if kind == 0:
            os.fsync(self.fd)
        elif kind == 1:
            os.fdatasync(self.fd)
        else:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def rename(self):
        os.rename(self.path, self.path + "-")
        self.path += "-"
        if len(self.path) % 7 == 0:
            os.rename(self.path, self.path.rstrip("-"))
            self.path = self.path.rstrip("-")

    def seek(self):
        """Data begins nowhere before the first byte that is not zero."""
        if not self.model:
            return
        first = len(self.model) - len(self.model.lstrip(b"\0"))
        try:
            found = os.lseek(self.fd, self.base, os.SEEK_DATA) - self.base
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            found = len(self.model)
        if found > first:
            raise AssertionError("SEEK_DATA says %d, data is at %d" % (found, first))

    def all(self):
        size = os.fstat(self.fd).st_size
        if size != self.base + len(self.model):
            raise AssertionError("the size is %d, not %d" % (size, self.base + len(self.model)))
        got = os.pread(self.fd, WINDOW_BYTES, self.base)
        if len(got) != len(self.model):
            raise AssertionError("%d bytes are read, not %d" % (len(got), len(self.model)))
        self.equal(got, 0, "the whole file")

    def run(self, operations):
        weights = {self.read: 8, self.write: 8, self.write_vector: 2, self.append: 3, self.truncate: 3,
                   self.map_read: 4, self.map_write: 4, self.direct: 3, self.fallocate: 1, self.punch: 2,
                   self.zero: 2, self.copy: 3, self.sync: 2, self.reopen: 2, self.rename: 1, self.seek: 1,
                   self.read_below: 1}
        for number in range(operations):
            operation = self.random.choices(list(weights), weights.values())[0]
            self.log.append([number, operation.__name__])
            self.log[-1].append(operation())
            size = os.fstat(self.fd).st_size
            if size != self.base + len(self.model):
                raise AssertionError("the size is %d, not %d" % (size, self.base + len(self.model)))
            if number % 100 == 99:
                self.all()
        self.reopen()
        self.all()
        os.close(self.fd)
        os.unlink(self.path)


def main():
    directory, seed, operations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    storm = Storm(directory, seed)
    try:
        storm.run(operations)
    except (AssertionError, OSError) as error:
        print("seed %d, base %d: %s" % (seed, storm.base, error))
        for line in storm.log[-SHOWN_OPERATIONS:]:
            print("  ", *line)
        sys.exit(1)


main()
