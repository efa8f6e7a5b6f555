"""Requests of the toolstack: control/shutdown and control/sysrq, taken, acknowledged, done.

A mode that lives long, such as a shell or a menu, runs Control.run() as a task; one that wants to
decide itself takes next() and act(). A request is a word that the toolstack writes into a node; it
is acknowledged by writing "" there in the same transaction as it is read, so that a request that
was withdrawn meanwhile is not taken. Rules: a word that is no request is left there and told once;
a node that is gone or empty is no request; what a server refuses is told once.
Source: Xen docs/misc/xenstore-paths.pandoc; Linux drivers/xen/manage.c.
"""

import hw

from . import abi
from .errors import Timeout, XenError
from .loop import SECOND
from .suspend import suspend
from .text import printable

SHUTDOWN = "control/shutdown"
SYSRQ = "control/sysrq"
FEATURES = ("poweroff", "reboot", "halt", "suspend")
# Words of control/shutdown, and keys of control/sysrq: what is said, and the reason to shut down
# with; None: to suspend.
COMMANDS = {
    "poweroff": ("powering off", abi.SHUTDOWN_poweroff),
    "halt": ("powering off", abi.SHUTDOWN_poweroff),
    "reboot": ("rebooting", abi.SHUTDOWN_reboot),
    "crash": ("crashing", abi.SHUTDOWN_crash),
    "suspend": ("suspending", None),
}
KEYS = {"o": "poweroff", "b": "reboot", "c": "crash"}
# Any vector: interrupts are off, so none is delivered. An HVM guest that has set none has no PV
# drivers for xl, which then asks it for nothing.
VECTOR = 0xF3
# The nodes are looked at so often, whether an event comes or not.
LOOK_AGAIN = 20 * SECOND
# Between two tries to hear the toolstack again; how long the console's reader is waited for.
RETRY = 5 * SECOND
FLUSH_MS = 2000


class Request:
    """What the toolstack asks for.

    command: one of COMMANDS, or "sysrq"; key: that of sysrq, one printable character.
    """

    def __init__(self, command, key=""):
        self.command = command
        self.key = key


class Control:
    """Listens to the toolstack.

    Args:
        guest: Guest, its xenstore connected.
        say: a function that is given lines.
    """

    def __init__(self, guest, say):
        self._guest = guest
        self._say = say
        self._watch = None
        # What was said once.
        self._said = []

    def _say_once(self, line):
        if line not in self._said:
            # A toolstack may write what it likes, so these do not grow.
            self._said = self._said[-7:] + [line]
            self._say(line)

    async def open(self):
        """Announce what can be asked for, and listen from now on. Raises XenError."""
        await self.announce()
        self._watch = await self._guest.store.watch("control")

    async def announce(self):
        """Announce what can be asked for, as far as a guest may; again after a suspension.

        Raises: XenError, but not for what is refused.
        """
        self._set_callback(abi.HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | VECTOR)
        for name in FEATURES:
            await self._write("control/feature-" + name, "1")

    def _set_callback(self, value):
        self._guest.xen.call(
            "HVMOP_set_param %d" % abi.HVM_PARAM_CALLBACK_IRQ,
            abi.HYPERVISOR_hvm_op,
            abi.HVMOP_set_param,
            abi.XEN_HVM_PARAM,
            *(abi.DOMID_SELF, 0, abi.HVM_PARAM_CALLBACK_IRQ, value),
        )

    async def _write(self, node, value):
        store = self._guest.store
        try:
            await store.write(node, value)
        except XenError as e:
            if not store.connected():
                raise
            self._say_once("not announced: %s" % e)

    async def close(self):
        """Listen no more, and leave the domain as one without PV drivers. Raises XenError."""
        self._set_callback(0)
        for name in FEATURES:
            await self._write("control/feature-" + name, "")
        await self._deafen()

    async def _deafen(self):
        """End the watch, if there is one, as far as that works."""
        watch = self._watch
        self._watch = None
        if watch is not None:
            try:
                await watch.close()
            except XenError:
                # The server does not answer, or has none.
                pass

    # Requests.

    async def next(self):
        """Wait for the next request, and acknowledge it.

        Returns: a Request. Raises: RingCorrupt when xenstore's connection has ended; XenError.
        """
        while True:
            command = await self._take(SHUTDOWN, COMMANDS)
            if command:
                return Request(command)
            key = await self._take(SYSRQ, None)
            if key:
                return Request("sysrq", key)
            try:
                await self._watch.next(LOOK_AGAIN)
            except Timeout:
                # A server that begins anew has no watch of ours.
                pass

    async def _take(self, node, words):
        """Take what a node asks for, "" if that is nothing.

        words: those that it may ask for; None: any printable character.
        """
        store = self._guest.store

        async def take(transaction):
            value = printable(await transaction.find(node) or b"")
            known = len(value) == 1 if words is None else value in words
            if known and value != "?":
                await transaction.write(node, "")
                return value
            if value:
                self._say_once("%s: '%s' is no request, ignored" % (node, value[:40]))
            return ""

        # Most events are our own writing, and need no transaction.
        return await store.transact(take) if await store.find(node) else ""

    async def act(self, request):
        """Do what is asked for. Returns after a suspension, or where a key has no meaning.

        Before the end devices are closed and xenstore's ring is handed back; crash, and sysrq's
        keys, do without. Raises: XenError.
        """
        guest = self._guest
        command = request.command
        hard = command in ("crash", "sysrq")
        if command == "sysrq":
            if request.key not in KEYS:
                self._say("sysrq %s has no meaning here" % request.key)
                return
            command = KEYS[request.key]
        words, reason = COMMANDS[command]
        self._say("the toolstack asks for %s: %s" % (command, words))
        if reason is None:
            await suspend(guest, self._say)
            await self.announce()
            self._say("resumed")
            return
        if not hard:
            await self._leave()
        hw.console_flush(FLUSH_MS)
        guest.xen.shutdown(reason)

    async def _leave(self):
        """Close all devices, then xenstore, as far as that works."""
        guest = self._guest
        for device in list(guest.grants.devices):
            await self._close(device)
        await self._close(guest.store)

    async def _close(self, what):
        try:
            await what.close()
        except (XenError, MemoryError) as e:
            self._say("on the way out: %s" % e)

    # All of it, as a task.

    async def run(self, decide=None):
        """Do what the toolstack asks for, until cancelled; an error is told, and it goes on.

        A connection to xenstore that has ended is made anew.

        Args:
            decide: None, or an async function that is given each Request first, and returns whether
                nothing is left to do for it.
        """
        guest = self._guest
        while True:
            try:
                if not guest.store.connected():
                    await guest.store.connect()
                await self.open()
                while True:
                    request = await self.next()
                    if decide is None or not await decide(request):
                        await self.act(request)
            except (XenError, MemoryError) as e:
                self._say_once("the toolstack is not heard: %s" % e)
            await self._deafen()
            await guest.loop.sleep(RETRY)
