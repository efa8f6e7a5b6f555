"""The crashed kernel's log, from its memory: the text that dmesg would have printed.

Used by `pvdump collect --log`. Kernels from 5.10 on have a ring of descriptors and one of text,
those from 3.5 to 5.9 one buffer of records; VMCOREINFO says which, and where. The rules: records
are read and given one by one, so that the memory this needs does not grow with the log; every
number may be damaged, so it is checked before use; a record that cannot be had costs only itself
and is counted.
Source: Linux kernel/printk/printk_ringbuffer.[ch]; kernel/printk/printk.c of 5.9 for the older one.
"""

from .errors import CoreError
from .pagetables import PageTables

# log2 of the largest rings that are read, as of log_buf_len=64M.
COUNT_BITS_MAX = 21
SIZE_BITS_MAX = 26
# Linux writes no record of more than 1024 bytes.
TEXT_MAX = 4096
# Of prb_desc.state_var: the state is in its two top bits, the id in the others.
STATE_SHIFT = 62
ID_MASK = (1 << STATE_SHIFT) - 1
COMMITTED, FINALIZED, REUSABLE = 1, 2, 3
# Set in both positions of a record without a block of text.
NO_BLOCK = 1
# A block of the text ring begins with its descriptor's id.
BLOCK_ID = 8
# Of printk_info.caller_id: the rest is a CPU's number, not a task's.
CALLER_CPU = 1 << 31
# Bytes of the smallest struct printk_log.
HEADER_MIN = 16


class Log:
    """The log of a crashed kernel.

    Args:
        memory: its read(paddr, size) returns the bytes at a physical address, or raises CoreError.
        info: vmcoreinfo.Vmcoreinfo.

    Attributes:
        lost: number of records that the last walk could not have, so far.
        why: what is wrong with the first of them; "" for none.

    Raises CoreError where the log has no known format, or where it lies cannot be read.
    """

    def __init__(self, memory, info):
        self.lost = 0
        self.why = ""
        space = PageTables(memory, info)
        if info.symbol("prb") is not None:
            self._ring = Ring(space, info)
        elif info.symbol("log_first_idx") is not None:
            self._ring = Buffer(space, info)
        else:
            raise CoreError("the format of this kernel's log is unknown: no SYMBOL(prb)")

    def lines(self, newest=None):
        """Yield the log's lines, the oldest first.

        They have printable ASCII and tabs only; each other byte is written as \\xNN. A record's
        first line begins with its time in seconds and, where that is known, the task (T) or CPU (C)
        that wrote it; its other lines are indented by as much.

        Args:
            newest: how many records are taken, the newest ones; None: all.
        """
        for time, caller, lines in self.records(newest):
            begin = "[%5d.%06d] " % (time // 1000000000, time % 1000000000 // 1000)
            if caller is not None:
                kind = "C" if caller & CALLER_CPU else "T"
                begin += "[%8s] " % (kind + str(caller & (CALLER_CPU - 1)))
            for line in lines:
                yield begin + line
                begin = " " * len(begin)

    def records(self, newest=None):
        """Yield (time in ns, caller's id or None, list of its lines) of records, as lines() does.

        newest: as of lines().
        """
        self.lost = 0
        self.why = ""
        for place in self._ring.places(newest):
            try:
                record = self._ring.record(place)
            except CoreError as e:
                self.lost += 1
                self.why = self.why or str(e)
                continue
            if record is None:
                continue
            time, caller, text = record
            yield time, caller, [_harmless(line) for line in text.split(b"\n")]


class Ring:
    """The log of kernels from 5.10 on: a ring of descriptors, and one of blocks of text.

    Args:
        space: pagetables.PageTables.
        info: vmcoreinfo.Vmcoreinfo.

    Raises CoreError where the description of the rings is damaged or cannot be read.
    """

    def __init__(self, space, info):
        self._space = space
        counter = info.offset("atomic_long_t.counter")
        self._desc_size = info.size("prb_desc")
        self._state = info.offset("prb_desc.state_var") + counter
        block = info.offset("prb_desc.text_blk_lpos")
        self._begin = block + info.offset("prb_data_blk_lpos.begin")
        self._next = block + info.offset("prb_data_blk_lpos.next")
        self._info_size = info.size("printk_info")
        self._time = info.offset("printk_info.ts_nsec")
        self._length = info.offset("printk_info.text_len")
        # Kernels that do not print the caller need not give its place.
        self._caller = None
        if info.has_offset("printk_info.caller_id"):
            self._caller = info.offset("printk_info.caller_id")

        raw = space.read(
            _number(space.read(info.symbol("prb"), 8), 0, 8), info.size("printk_ringbuffer")
        )
        descs = info.offset("printk_ringbuffer.desc_ring")
        texts = info.offset("printk_ringbuffer.text_data_ring")
        bits = _number(raw, descs + info.offset("prb_desc_ring.count_bits"), 4)
        self._count = 1 << _bounded("count_bits", bits, COUNT_BITS_MAX)
        self._descs = _number(raw, descs + info.offset("prb_desc_ring.descs"), 8)
        self._infos = _number(raw, descs + info.offset("prb_desc_ring.infos"), 8)
        self._head = _number(raw, descs + info.offset("prb_desc_ring.head_id") + counter, 8)
        self._tail = _number(raw, descs + info.offset("prb_desc_ring.tail_id") + counter, 8)
        bits = _number(raw, texts + info.offset("prb_data_ring.size_bits"), 4)
        self._size = 1 << _bounded("size_bits", bits, SIZE_BITS_MAX)
        self._texts = _number(raw, texts + info.offset("prb_data_ring.data"), 8)

    def places(self, newest=None):
        """Yield the ids of the descriptors in use, the oldest first; of the newest ones alone."""
        newer = (self._head - self._tail) & ID_MASK
        most = self._count if newest is None else min(newest, self._count)
        # A damaged tail costs nothing: what its ring does not have in use says so itself.
        for back in range(min(newer, most - 1), -1, -1):
            yield (self._head - back) & ID_MASK

    def record(self, place):
        """Read a record.

        Args:
            place: the descriptor's id.

        Returns: (time in ns, caller's id or None, text as bytes); None for a record that was not
        finished or has no text.

        Raises CoreError where the record is damaged or cannot be read.
        """
        slot = place % self._count
        desc = self._space.read(self._descs + slot * self._desc_size, self._desc_size)
        state_var = _number(desc, self._state, 8)
        state, owner = state_var >> STATE_SHIFT, state_var & ID_MASK
        if owner != place:
            # The head moves first: the descriptor may still be as the last round left it.
            last = (place - self._count) & ID_MASK
            if state_var == 0 or (state == REUSABLE and owner == last):
                return None
            raise _damaged("descriptor", place, "it has state_var 0x%x" % state_var)
        if state not in (COMMITTED, FINALIZED):
            return None
        begin, end = _number(desc, self._begin, 8), _number(desc, self._next, 8)
        if begin & end & NO_BLOCK:
            return None
        info = self._space.read(self._infos + slot * self._info_size, self._info_size)
        start, length = self._text(place, begin, end, _number(info, self._length, 2))
        caller = None if self._caller is None else _number(info, self._caller, 4)
        return _number(info, self._time, 8), caller, self._space.read(self._texts + start, length)

    def _text(self, place, begin, end, length):
        """Return (offset in the text ring, bytes) of a record's text."""
        first, last = begin % self._size, end % self._size or self._size
        if first > last:
            # The block did not fit into the end of the ring, so it is at its start.
            first = 0
        first += BLOCK_ID
        length = min(length, last - first)
        if not 0 <= length <= TEXT_MAX:
            raise _damaged("descriptor", place, "its text is from 0x%x to 0x%x" % (begin, end))
        return first, length


class Buffer:
    """The log of kernels from 3.5 to 5.9: records one behind the other, in one buffer.

    Args and Raises: as of Ring.
    """

    def __init__(self, space, info):
        self._space = space
        name = "printk_log" if info.has_offset("printk_log.len") else "log"
        self._header = info.size(name)
        self._time = info.offset(name + ".ts_nsec")
        self._length = info.offset(name + ".len")
        self._text_length = info.offset(name + ".text_len")
        self._at = self._variable(info, "log_buf", 8)
        self._size = self._variable(info, "log_buf_len", 4)
        self._first = self._variable(info, "log_first_idx", 4)
        self._end = self._variable(info, "log_next_idx", 4)
        if not HEADER_MIN <= self._header <= self._size <= 1 << SIZE_BITS_MAX:
            raise CoreError(
                "the kernel's log is damaged: a buffer of %d bytes, records with headers of %d"
                % (self._size, self._header)
            )

    def _variable(self, info, name, size):
        at = info.symbol(name)
        if at is None:
            raise CoreError("VMCOREINFO has no usable SYMBOL(%s)" % name)
        return _number(self._space.read(at, size), 0, size)

    def places(self, newest=None):
        """Yield where the records begin, the oldest first; of the newest ones alone.

        A damaged record is the last.
        """
        skip = 0
        if newest is not None:
            for _ in self._places():
                skip += 1
            skip = max(skip - newest, 0)
        for number, place in enumerate(self._places()):
            if number >= skip:
                yield place

    def _places(self):
        at, wrapped = self._first, False
        while at != self._end:
            try:
                length = _number(self._read_header(at), self._length, 2)
            except CoreError:
                length = 1
            if length == 0 and not wrapped:
                # The next one did not fit into the end of the buffer.
                at, wrapped = 0, True
                continue
            yield at
            if length < self._header:
                return
            at += length

    def record(self, place):
        """Read the record at an offset of the buffer. Returns and raises as Ring.record()."""
        header = self._read_header(place)
        length, text = _number(header, self._length, 2), _number(header, self._text_length, 2)
        if not self._header + text <= length <= self._size - place or text > TEXT_MAX:
            raise _damaged("record", place, "it has %d bytes, %d of text" % (length, text))
        raw = self._space.read(self._at + place + self._header, text)
        return _number(header, self._time, 8), None, raw

    def _read_header(self, at):
        if at > self._size - self._header:
            raise _damaged("record", at, "it leaves the buffer of %d bytes" % self._size)
        return self._space.read(self._at + at, self._header)


def _number(raw, at, size):
    """Return the number in `size` bytes of a structure."""
    if at + size > len(raw):
        raise CoreError("VMCOREINFO is damaged: field at %d in %d bytes" % (at, len(raw)))
    return int.from_bytes(raw[at : at + size], "little")


def _bounded(name, bits, most):
    if not 0 < bits <= most:
        raise CoreError("the kernel's log is damaged: it has %s %d" % (name, bits))
    return bits


def _damaged(kind, place, why):
    return CoreError("%s %d of the kernel's log is damaged: %s" % (kind, place, why))


def _harmless(raw):
    """Return bytes as text that cannot harm a terminal and still says what they were."""
    return "".join(chr(c) if 32 <= c < 127 or c == 9 else "\\x%02x" % c for c in raw)
