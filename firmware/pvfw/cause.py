"""Why the crashed kernel died: the lines of its log that say so.

Used by the stream, which notes it among its facts, and by the dump agent, which says it before
anything is written. Only the newest records are read, so that this takes as long for a long log as
for a short one. The rules: lines that belong together, an oops and the panic that follows it, are
one event; the event with the panic counts, without one the last event, if it is no older than
TOGETHER; whatever the log holds, the text is printable and bounded.
Source: Linux kernel/panic.c, arch/x86/kernel/dumpstack.c and mm/fault.c, drivers/tty/sysrq.c.
"""

# Of the log; what a kernel prints as it dies has some 100 records a CPU that it shows.
RECORDS = 512
PANIC = "Kernel panic - not syncing"
# How lines begin that say that something is wrong. An oops of any kind has OOPS in it.
FAULTS = (
    "BUG: ",
    "Oops",
    "sysrq: Trigger a crash",
    "sysrq: SysRq : Trigger a crash",
    "SysRq : Trigger a crash",
    "general protection fault",
    "kernel BUG at",
    "watchdog: BUG: ",
    "INFO: task ",
    "rcu: INFO: ",
    "WARNING: ",
    "traps: PANIC",
    "mce: [Hardware Error]",
    "Out of memory",
)
OOPS = " [#"
CPU = "CPU: "
COMM = " Comm: "
# The code segment is the kernel's.
RIP = "RIP: 0010:"
# Of a line with CPU, what follows the task's name.
TAINT = (" Not tainted", " Tainted: ")
FAULTS_MAX = 2
# Records of one event are no more ns apart than this.
TOGETHER = 10 * 1000 * 1000 * 1000
LINE_MAX = 160
TEXT_MAX = 128


class Cause:
    """The cause of a crash, as far as the log says it.

    Args:
        log: printk.Log.

    Attributes:
        lines: of the log, at most FAULTS_MAX + 3 of at most LINE_MAX characters; [] where the log
            does not say it.
        text: the same in one line of at most TEXT_MAX characters; "" where it is not known.
        last: the log's last line, "" without one.
    """

    def __init__(self, log):
        self.last = ""
        event = None
        newest = 0
        for time, _, lines in log.records(RECORDS):
            newest = time
            for line in lines:
                line = line.strip()[:LINE_MAX]
                self.last = line or self.last
                event = _next(event, time, line)
        if event is not None and event.panic == "" and newest - event.time > TOGETHER:
            event = None
        self.lines = [] if event is None else event.lines()
        self.text = "" if event is None else event.text()


class Event:
    """What a kernel says when something goes wrong.

    Attributes:
        time: of its last line, ns.
        faults: its first lines.
        panic, rip, cpu: lines; "" where there is none yet.
        is_over: whether what follows is of another event.
    """

    def __init__(self):
        self.time = 0
        self.faults = []
        self.panic = self.rip = self.cpu = ""
        self.is_over = False

    def lines(self):
        """Return the lines, what says most first."""
        return [line for line in self.faults + [self.panic, self.rip, self.cpu] if line]

    def text(self):
        """Return what fits into TEXT_MAX characters of the first line, the place and the task."""
        text = self.lines()[0][:TEXT_MAX]
        for line in (self.rip, self.cpu):
            if line and len(text) + 2 + len(line) <= TEXT_MAX:
                text += "; " + line
        return text


def _next(event, time, line):
    """Take a line. Returns the event that counts from then on, None for none so far."""
    is_panic = line.startswith(PANIC)
    is_fault = not is_panic and (OOPS in line or any(line.startswith(mark) for mark in FAULTS))
    if event is not None and event.panic:
        # What comes behind a panic tells more of it, up to the next trouble.
        event.is_over = event.is_over or is_panic or is_fault
        if event.is_over:
            return event
    elif is_panic or is_fault:
        is_other = event is None or time - event.time > TOGETHER
        if is_other or (is_fault and (event.rip or event.cpu)):
            event = Event()
    if event is None:
        return None
    if is_panic:
        event.panic = line
    elif is_fault and len(event.faults) < FAULTS_MAX:
        event.faults.append(line)
    elif line.startswith(RIP):
        event.rip = event.rip or line
    elif line.startswith(CPU) and COMM in line:
        for mark in TAINT:
            line = line.split(mark)[0]
        event.cpu = event.cpu or line
    else:
        return event
    event.time = time
    return event
