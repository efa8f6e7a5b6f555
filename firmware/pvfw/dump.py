"""The dump agent: from elfcorehdr to a complete dump on the target, without copying.

The mode `dump` of main. The order is what makes a dump safe: everything is checked, and all memory
taken, before the first write; the superblock says "writing" before the dump's first byte goes out,
and "complete" only after a FLUSH of the last. When something fails in between, the superblock says
"partial", how far the dump is known to be written, and why; then the next target gets a dump of its
own, whole. Where xenstore fails the dump goes on: the disk decides.

What a dump looks like is decided by its format, where it goes by its sink; neither knows the other:

    format.least        bytes that it takes at least on the target
    format.buffer       pages that the sink is to have for what it is given as bytes
    format.reserve(n)   take all memory that writing needs, n buffers to be given to own()
    format.write(sink)  async: write everything, in ascending order; returns the bytes
    format.again()      get ready to be written once more, with another id
    format.done         pages that it is through with, of format.pages

    sink.put(data)      async: append bytes, which are copied
    sink.frames(gfn, n) async: append n whole frames, which are granted; behind what does not end
                        with a page there are zeros first
    sink.own(gfn, n)    async: the same of frames of our own, which may be used again only once
                        sink.wait(size) says that they are written
    sink.sync()         async: have what was appended so far on stable storage
    sink.end()          async: write what is left, wait for all; returns the bytes on the target

The format is stream.Stream, made of an oldmem.OldMemory; the sink is target.Target, or for a
configuration with recipients sealed.Sealed before it. All may raise DumpError and XenError.

At the level that keeps the log alone (config.LOG_ONLY) the log goes to the console too, and, where
no disk takes the dump and none was named, to xenstore. Where the configuration has recipients no
text of the crashed kernel goes to the console, xenstore or the superblock, unless the configuration
lets the log go in clear.
"""

import hw
from xenpv.abi import PAGE_SIZE
from xenpv.errors import XenError
from xenpv.loop import SECOND, Signal

from . import age, asked, choose, logtext, superblock
from . import target as disk
from .clock import now_utc
from .config import LOG_ONLY
from .errors import DumpError, NoTarget, OptionError, TargetRefused, reason, withheld
from .holes import Holes
from .oldmem import OldMemory
from .packer import BUFFERS
from .report import say
from .sealed import OVERHEAD, Sealed
from .stream import Stream
from .target import MIB

REPORT_EVERY = SECOND
U64 = (1 << 64) - 1
# Of a level: user pages are left out.
USER_PAGES = 8


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
    if options.encrypted and not options.config.recipients:
        raise OptionError(
            "pvdump.recipients=required, and there is no usable configuration with any"
        )
    private = options.private()
    listens = Signal()
    guest.loop.spawn(asked.listen(guest.store, listens))
    # No longer: the server may be one that does not answer.
    await listens.wait(hw.now() + 5 * SECOND)
    try:
        await _dump(guest, options, region, report, private)
    except Exception as e:
        if private and withheld(e) is not e:
            raise withheld(e)
        raise


async def _dump(guest, options, region, report, private):
    """Do as run(). private: whether what is said may have no text of the crashed kernel."""
    tell = _hush if private else say
    targets = options.places()
    memory = OldMemory(options.elfcorehdr, region)
    for problem in memory.problems:
        tell(problem)
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
        tell("the configuration is for kernel %s: its facts are not used" % options.config.release)
    facts.append("level=%d" % level)
    stream = Stream(
        memory, number, facts, Holes(guest.xen, True), level, options.compress, given, tell
    )
    say(
        "kernel %s, %d MiB in %d ranges, crash on vCPU %d"
        % (
            "not told" if private else release or "?",
            stream.pages * PAGE_SIZE // MIB,
            stream.ranges,
            hw.vcpu(),
        )
    )
    keys = None
    if options.config.recipients:
        keys = age.Keys(options.config.recipients, options.config.nonce)
        say("the dump is encrypted to %d recipients" % len(options.config.recipients))
    if stream.log is None:
        tell("why the kernel died is not known, its log cannot be read: %s" % stream.no_log)
    elif not private:
        _say_cause(stream.cause)
        if level == LOG_ONLY:
            await logtext.show(stream.log, guest.loop)
    try:
        await Dump(guest, report, keys, private).run(stream, release, targets)
    except NoTarget as e:
        if level != LOG_ONLY or private or stream.log is None:
            raise
        say(str(e))
        if not await logtext.tell(stream.log, guest):
            raise


def _hush(line):
    """Say nothing of what may quote the crashed kernel."""


def _say_cause(cause):
    """Say why the kernel died, or that its log does not say it."""
    if not cause.lines:
        say("the kernel's log does not say why it died; its last line: %s" % cause.last)
        return
    say("why the kernel died: %s" % cause.lines[0])
    for line in cause.lines[1:]:
        say("  " + line)


class Dump:
    """One dump.

    Args:
        guest: Guest.
        report: report.Report.
        keys: age.Keys to encrypt it with, or None.
        private: whether the superblock may have no text of the crashed kernel.
    """

    def __init__(self, guest, report, keys=None, private=False):
        self.guest = guest
        self.report = report
        self._keys = keys
        self._private = private
        self._reported = 0
        self._reported_size = 0
        self._memory = self._sealed = None
        self._is_reserved = False
        self._target = self._sink = None
        self._content = None

    async def run(self, content, release, targets):
        """Write a dump to a target; where that fails, whole to the next one.

        Args:
            content: the format, as above.
            release: the crashed kernel's, for the superblock.
            targets: of config.Target, in order of preference; none: all disks that there are.

        Raises DumpError, XenError or MemoryError, with what stopped it on the last target.
        """
        guest = self.guest
        several = len(targets) != 1
        if several:
            store, grants, least = guest.store, guest.grants, content.least
            targets = await choose.choose(store, grants, targets, least, say)
        self._memory = disk.Memory(guest.grants)
        last = len(targets) - 1
        for i, wanted in enumerate(targets):
            if several:
                say("dumping to %s" % wanted)
            try:
                await self._dump(content, release, wanted)
                return
            except (DumpError, XenError, MemoryError) as e:
                if i == last:
                    raise
                say("dump to %s failed: %s" % (wanted, self._reason(e)))
            self._memory.fresh()
            content.again()

    async def _dump(self, content, release, wanted):
        """Write a dump to one target. Raises as run()."""
        guest = self.guest
        if wanted.swap and not content.level & USER_PAGES:
            raise TargetRefused(
                "%s refused, nothing on it was changed: it is swap, and level %d keeps user pages,"
                " which may be swapped out to it" % (wanted, content.level)
            )
        device = await disk.find(guest.store, guest.loop, wanted.name)
        memory = self._memory
        target = disk.Target(guest.xen, guest.loop, guest.grants, device, wanted, memory, say)
        self._target = target
        try:
            await target.open()
            target.check(content.least + (OVERHEAD if self._keys else 0))
            target.reserve(content.buffer)
            if not self._is_reserved:
                # A sink that encrypts copies.
                content.reserve(1 if self._keys else BUFFERS)
                if self._keys:
                    self._sealed = Sealed(self._keys)
                self._is_reserved = True
            self._sink = target
            if self._keys:
                self._sealed.begin(target, content.dump)
                self._sink = self._sealed
            await target.probe()
            await self._record(content, release)
        finally:
            await target.close()

    async def _record(self, content, release):
        self._content = content
        target = self._target
        block = target.block
        block.dump = content.dump
        block.level = content.level
        block.algorithm = content.algorithm
        block.started = now_utc()
        block.crash_vcpu = hw.vcpu()
        block.release = "" if self._private else release
        block.format = superblock.FORMAT_AGE if self._keys else superblock.FORMAT_STREAM
        await target.save(superblock.WRITING)
        began = self._reported = hw.now()
        self._reported_size = 0
        try:
            target.begin(self._progress)
            await content.write(self._sink)
            size = await self._sink.end()
            await target.disk.flush()
            block.written = block.dump_size = size
            await target.save(superblock.COMPLETE)
        except Exception as e:
            # Whatever it is: what is on the disk so far must be found there.
            await self._partial(e)
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
        if content.level == LOG_ONLY:
            size = self._target.block.dump_size // 1024
            say("dump complete: log, notes and stacks alone, %d KiB" % size)
            return
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

    async def _partial(self, error):
        """Record on the target, if it still takes it, how far the dump got and why it ended."""
        target = self._target
        block = target.block
        block.reason = self._reason(error)
        if self._keys and not isinstance(error, XenError):
            await self._finish()
        try:
            block.written = await target.settle()
            await target.save(superblock.PARTIAL)
        except (DumpError, XenError, MemoryError) as e:
            say("the superblock could not be set to partial: %s" % reason(e))
            return
        say("dump partial: %d KiB are on the disk" % (block.written // 1024))

    def _reason(self, error):
        """Return what may be told of an error."""
        return reason(withheld(error) if self._private else error)

    async def _finish(self):
        """Encrypt and write what stands in the sink's buffers, if the target takes it."""
        try:
            await self._sink.end()
        except (DumpError, XenError, MemoryError):
            # It is full, or has failed as well: what there is so far remains.
            pass
