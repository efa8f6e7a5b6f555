"""The dump agent: from elfcorehdr to a complete dump on the target, without copying.

The mode `dump` of main. The order is what makes a dump safe: everything is checked, and all memory
taken, before the first write; the superblock says "writing" before the dump's first byte goes out,
and "complete" only after a FLUSH of the last. When something fails in between, the superblock says
"partial", how far the dump is known to be written, and why. Where xenstore fails the dump goes on:
the disk decides.

What a dump looks like is decided by its format, where it goes by its sink; neither knows the other:

    format.least        bytes that it takes at least on the target
    format.buffer       pages that the sink is to have for what it is given as bytes
    format.reserve()    take all memory that writing needs
    format.write(sink)  async: write everything, in ascending order; returns the bytes
    format.done         pages that it is through with, of format.pages

    sink.put(data)      async: append bytes, which are copied
    sink.frames(gfn, n) async: append n whole frames, which are granted; behind what does not end
                        with a page there are zeros first
    sink.own(gfn, n)    async: the same of frames of our own, which may be used again only once
                        sink.wait(size) says that they are written
    sink.sync()         async: have what was appended so far on stable storage
    sink.written()      bytes, from the first on, that the backend has acknowledged

The format is stream.Stream, made of an oldmem.OldMemory; the sink is target.Target. Both may raise
DumpError and XenError.
"""

import hw
from xenpv.abi import PAGE_SIZE
from xenpv.errors import XenError
from xenpv.loop import SECOND

from . import choose, superblock
from . import target as disk
from .clock import now_utc
from .errors import DumpError, OptionError, reason
from .holes import Holes
from .oldmem import OldMemory
from .report import say
from .stream import Stream
from .target import MIB

REPORT_EVERY = SECOND
U64 = (1 << 64) - 1


async def run(guest, options, region, report):
    """Dump the crashed kernel's memory.

    Args:
        guest: Guest, its xenstore connected.
        options: options.Options.
        region: (start, end), physical addresses of the memory that we run in.
        report: report.Report.

    Raises DumpError or XenError, with what stopped it, and MemoryError.
    """
    if options.elfcorehdr is None:
        raise OptionError(
            "no usable elfcorehdr= on the command line: load this image with `kexec -p`"
        )
    if options.config.recipients:
        raise OptionError("the configuration has recipients, and this image cannot encrypt")
    disks = options.disks()
    memory = OldMemory(options.elfcorehdr, region)
    for problem in memory.problems:
        say(problem)
    release = memory.info("OSRELEASE")
    started = now_utc()
    facts = ["release=%s" % release, "started=%d" % started, "vcpu=%d" % hw.vcpu()]
    # No two dumps on one disk have the same.
    number = (started << 32 ^ hw.now()) & U64
    level = options.level
    given = {}
    if options.config.release == release:
        given = options.config.facts
    elif options.config.facts:
        say("the configuration is for kernel %s: its facts are not used" % options.config.release)
    facts.append("level=%d" % level)
    stream = Stream(
        memory, number, facts, Holes(guest.xen, True), level, options.compress, given, say
    )
    say(
        "kernel %s, %d MiB in %d ranges, crash on vCPU %d"
        % (release or "?", stream.pages * PAGE_SIZE // MIB, stream.ranges, hw.vcpu())
    )
    await Dump(guest, report).run(stream, release, disks)


class Dump:
    """One dump.

    Args:
        guest: Guest.
        report: report.Report.
    """

    def __init__(self, guest, report):
        self.guest = guest
        self.report = report
        self._reported = 0
        self._reported_size = 0
        self._target = None
        self._content = None

    async def run(self, content, release, disks):
        """Write a dump to a disk.

        Args:
            content: the format, as above.
            release: the crashed kernel's, for the superblock.
            disks: names, in order of preference; none: all that there are.

        Raises DumpError, XenError or MemoryError, with what stopped it.
        """
        guest = self.guest
        name = disks[0] if len(disks) == 1 else await self._choose(disks, content.least)
        device = await disk.find(guest.store, guest.loop, name)
        self._target = target = disk.Target(guest.xen, guest.loop, guest.grants, device, name, say)
        try:
            await target.open()
            target.check(content.least)
            target.reserve(content.buffer)
            content.reserve()
            await target.probe()
            await self._record(content, release)
        finally:
            await target.close()

    async def _choose(self, disks, size):
        name = await choose.choose(self.guest.store, self.guest.grants, disks, size, say)
        say("dumping to %s" % name)
        return name

    async def _record(self, content, release):
        self._content = content
        target = self._target
        block = target.block
        block.dump = content.dump
        block.level = content.level
        block.algorithm = content.algorithm
        block.started = now_utc()
        block.crash_vcpu = hw.vcpu()
        block.release = release
        await target.save(superblock.WRITING)
        began = self._reported = hw.now()
        try:
            target.begin(self._progress)
            size = await content.write(target)
            await target.end()
            await target.disk.flush()
            block.written = block.dump_size = size
            await target.save(superblock.COMPLETE)
        except Exception as e:
            # Whatever it is: what is on the disk so far must be found there.
            await self._partial(reason(e))
            raise
        took = max(hw.now() - began, 1)
        try:
            self._complete(content, took)
        except MemoryError:
            # The dump is complete all the same. say() would need memory.
            print("pvdump: dump complete")

    def _complete(self, content, took):
        if content.missing:
            say(
                "%d pages could not be read: they have no memory, or another domain's"
                % content.missing
            )
        left_out = [
            "%s %d" % (name, count * PAGE_SIZE // MIB)
            for name, count in content.left_out()
            if count
        ]
        if left_out:
            say("left out, MiB: " + ", ".join(left_out))
        say(
            "dump complete: %d MiB in %d MiB, %d.%d s, %d MiB/s"
            % (
                content.pages * PAGE_SIZE // MIB,
                self._target.block.dump_size // MIB,
                took // SECOND,
                took % SECOND * 10 // SECOND,
                content.pages * PAGE_SIZE * SECOND // took // MIB,
            )
        )

    async def _progress(self):
        """Tell how far the dump is, once in REPORT_EVERY.

        Where there is no memory for that, the next time tells it.
        """
        now = hw.now()
        took = now - self._reported
        if took < REPORT_EVERY:
            return
        self._reported = now
        try:
            await self._tell(took)
        except MemoryError:
            pass

    async def _tell(self, took):
        target = self._target
        done = self._content.done * PAGE_SIZE
        rate = (done - self._reported_size) * SECOND // took // MIB
        self._reported_size = done
        await target.note()
        line = "%d of %d MiB" % (done // MIB, self._content.pages * PAGE_SIZE // MIB)
        say("%s, %d MiB/s" % (line, rate))
        await self.report.tell("progress", line)

    async def _partial(self, why):
        """Record on the target, if it still takes it, how far the dump got and why it ended."""
        target = self._target
        block = target.block
        block.reason = why
        try:
            block.written = await target.settle()
            await target.save(superblock.PARTIAL)
        except (DumpError, XenError, MemoryError) as e:
            say("the superblock could not be set to partial: %s" % reason(e))
            return
        say("dump partial: %d KiB are on the disk" % (block.written // 1024))
