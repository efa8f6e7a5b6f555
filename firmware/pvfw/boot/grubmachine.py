"""The state of a GRUB configuration that is run: variables, functions, entries, files.

Used by grub.py and the commands in grubcommands.py. Rules: a command that is not known fails and is
noted once; those in IDLE succeed and do nothing. Files
are found by GRUB's names of volumes, or on the volume that `root` names.
Source: GRUB manual, "Available commands".
"""

from . import files
from .entries import TEXT_MAX, Entry, text
from .errors import BootError, Damaged, Exhausted, NotThere, Unsupported
from .grubcommands import COMMANDS
from .grubscript import RETURN, Script
from .nodes import FOLDER, shown
from .volumes import number

ITEMS_MAX = 128
VARIABLES_MAX = 256
FUNCTIONS_MAX = 64
ARGUMENTS_MAX = 10
TEXTS_MAX = 16

IDLE = frozenset(
    b"insmod rmmod export save_env echo clear sleep play blscfg terminal_input terminal_output"
    b" serial loadfont background_image background_color gfxpayload lsefi : true cpuid fwsetup"
    b" password password_pbkdf2 legacy_password cryptomount increment boot".split()
)
FAILING = (b"false", b"keystatus", b"is_loaded")
# What shows that an entry boots something else.
OTHERS = frozenset(
    b"chainloader multiboot multiboot2 module module2 xen_hypervisor xen_module kfreebsd knetbsd"
    b" kopenbsd ntldr drivemap appleloader".split()
)
FEATURES = (b"menuentry_id", b"platform_search_hint", b"default_font_path", b"timeout_style")
WITH_VALUE = (b"--class", b"--users", b"--hotkey", b"--source", b"--id")


class Item:
    """A menu entry or a submenu. Attributes: name (the title), id, arguments, block, is_submenu."""

    def __init__(self, words, block, is_submenu):
        self.is_submenu = is_submenu
        self.block = block
        self.id = None
        plain = []
        at = 1
        while at < len(words):
            name, equals, value = words[at].partition(b"=")
            if name in WITH_VALUE:
                if not equals:
                    at += 1
                    value = words[at] if at < len(words) else b""
                if name == b"--id":
                    self.id = value
            elif words[at][:2] != b"--":
                plain.append(words[at])
            at += 1
        if not plain:
            raise Damaged("a menu entry without a title")
        self.name = plain[0]
        if self.id is None:
            self.id = self.name
        self.arguments = ([words[0]] + plain)[:ARGUMENTS_MAX]


class Machine:
    """The state of a configuration that is run, and the commands.

    Args:
        volumes: Volumes.
        notes: Notes.
        work: grubwords.Work.

    Attributes: as grubscript.Script wants them; variables, a dict of bytes; found, list of Item;
    following, the content of another configuration that takes this one's place, or None; saved,
    the entry that the environment block names where its values may not be used, or None; kernel
    (Place or None), initrds (list of Place), options (bytes), what an entry loads.
    """

    def __init__(self, volumes, notes, work):
        self.volumes = volumes
        self.notes = notes
        self.work = work
        self.depth = self.loops = 0
        self.leaving = None
        self.status = True
        self.variables = {}
        self._functions = {}
        self._arguments = []
        self.found = []
        self.following = self.saved = None
        # Bytes and number of the texts that are run, in a list that inner machines share.
        self._texts = [0, 0]
        self.kernel = None
        self.initrds = []
        self.options = b""
        # Why an entry loads nothing.
        self._other = None

    def begin(self, volume, folder):
        """Set the variables that GRUB sets before its configuration."""
        root = volume.grub.encode()
        self.variables = {b"feature_" + each: b"y" for each in FEATURES}
        self.variables[b"root"] = root
        self.variables[b"prefix"] = b"(" + root + b")" + folder
        self.variables[b"config_directory"] = self.variables[b"prefix"]
        self.variables[b"config_file"] = self.variables[b"prefix"] + b"/grub.cfg"
        self.variables[b"grub_platform"] = b"xen_pvh"
        self.variables[b"grub_cpu"] = b"i386"

    def inner(self, item):
        """Return the machine that runs an entry's block."""
        other = Machine(self.volumes, self.notes, self.work)
        other.variables = dict(self.variables)
        other.variables[b"chosen"] = item.name
        other._functions = self._functions
        other._arguments = item.arguments
        other._texts = self._texts
        return other

    def entry(self, source, item, id):
        """Return the Entry that an item's block has loaded. Raises: Unsupported, Damaged."""
        if self.kernel is None:
            raise Unsupported("it loads no Linux" + (self._other or ""))
        return Entry(source, item.name, id, self.kernel, self.initrds, self.options)

    def count(self, raw):
        """Count a text that is run. Raises Damaged: they are too many, or too large."""
        self._texts[0] += len(raw)
        self._texts[1] += 1
        if self._texts[0] > TEXT_MAX or self._texts[1] > TEXTS_MAX:
            raise Damaged(
                "more than %d GRUB configurations, or %d bytes of them" % (TEXTS_MAX, TEXT_MAX)
            )

    # What the language needs.

    def value(self, name):
        """Return the value of a variable, bytes."""
        if name == b"?":
            return b"0" if self.status else b"1"
        if name == b"#":
            return b"%d" % max(len(self._arguments) - 1, 0)
        if name in (b"@", b"*"):
            return b" ".join(self._arguments[1:])
        if name[:1].isdigit():
            at = number(name, ARGUMENTS_MAX)
            return self._arguments[at] if at is not None and at < len(self._arguments) else b""
        return self.variables.get(name, b"")

    def set(self, name, value):
        """Set a variable. Raises Damaged: too many."""
        if name not in self.variables and len(self.variables) == VARIABLES_MAX:
            raise Damaged("a GRUB script with more than %d variables" % VARIABLES_MAX)
        self.variables[name] = value

    def define(self, name, block):
        """Define a function."""
        if len(self._functions) < FUNCTIONS_MAX:
            self._functions[name] = block

    async def do(self, words, block):
        """Run a command. Returns its status, True where it succeeded."""
        name = words[0]
        if name in self._functions:
            return await self._call(words)
        if name in (b"menuentry", b"submenu"):
            return self._item(words, block)
        if block is not None:
            raise Damaged("a GRUB script with a block behind %s" % shown(name))
        if name in IDLE:
            return True
        if name in FAILING:
            return False
        if name in OTHERS:
            self._other = self._other or ", but " + shown(name)
            return False
        command = COMMANDS.get(name)
        if command is not None:
            try:
                return await command(self, words)
            except Exhausted:
                raise
            except (NotThere, Unsupported) as e:
                self.notes.add("grub.cfg: %s: %s" % (shown(name), e))
                self._other = self._other or ": %s" % e
                return False
        variable, equals, value = name.partition(b"=")
        if equals and variable and len(words) == 1:
            self.set(variable, value)
            return True
        self.notes.add("grub.cfg: the command %s is not known here" % shown(name))
        return False

    async def _call(self, words):
        before, self._arguments = self._arguments, words[:ARGUMENTS_MAX]
        await Script(self, self._functions[words[0]]).run()
        self._arguments = before
        if self.leaving == RETURN:
            self.leaving = None
        return self.status

    def _item(self, words, block):
        if block is None:
            raise Damaged("a menu entry without a block")
        if len(self.found) == ITEMS_MAX:
            raise Damaged("more than %d menu entries" % ITEMS_MAX)
        self.found.append(Item(words, block, words[0] == b"submenu"))
        return True

    # Files.

    def split(self, path):
        """Split GRUB's name of a file. Returns (Volume, path on it). Raises NotThere."""
        if path[:1] == b"(":
            name, _, path = path[1:].partition(b")")
        else:
            name = self.value(b"root").lstrip(b"(").rstrip(b")")
        return self.volumes.by_grub(name), path

    async def look(self, how, path):
        """Tell what `test` asks about a path. Raises Exhausted."""
        try:
            volume, path = self.split(path)
            node = await files.find(volume.fs, path)
        except Exhausted:
            raise
        except BootError:
            return False
        if node is None:
            return False
        is_folder = node.kind == FOLDER
        if how == b"-s":
            return not is_folder and node.size > 0
        return how == b"-e" or is_folder == (how == b"-d")

    async def text(self, path):
        """Return the content of a file. Raises: NotThere, Damaged."""
        volume, path = self.split(path)
        raw = await text(volume, path)
        self.count(raw)
        return raw
