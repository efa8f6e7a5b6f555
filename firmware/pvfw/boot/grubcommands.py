"""GRUB's commands, as far as they say what is booted.

Used by grub.py. Rules: a command that is not known fails and is noted once; those in IDLE succeed
and do nothing. Files are found by GRUB's names of volumes, or on the volume that `root` names.
Source: GRUB manual, "Available commands".
"""

from . import files, grubenv, grubtest
from .entries import TEXT_MAX, Entry, Place, text
from .errors import BootError, Damaged, Exhausted, NotThere, Unsupported
from .grubscript import BREAK, CONTINUE, RETURN, Block, Script
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
LINUX = (b"linux", b"linux16", b"linuxefi")
INITRD = (b"initrd", b"initrd16", b"initrdefi")
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
        self.arguments = plain[:ARGUMENTS_MAX]


class Machine:
    """The state of a configuration that is run, and the commands.

    Args:
        volumes: Volumes.
        notes: Notes.
        work: grubwords.Work.

    Attributes: as grubscript.Script wants them; variables, a dict of bytes; found, list of Item;
    following, the content of another configuration that takes this one's place, or None.
    """

    def __init__(self, volumes, notes, work):
        self._volumes = volumes
        self._notes = notes
        self.work = work
        self.depth = self.loops = 0
        self.leaving = None
        self.status = True
        self.variables = {}
        self._functions = {}
        self._arguments = []
        self.found = []
        self.following = None
        # Bytes and number of the texts that are run, in a list that inner machines share.
        self._texts = [0, 0]
        # What an entry loads: (Volume, path), list of the same, bytes; and why it does not.
        self._kernel = None
        self._initrds = []
        self._options = b""
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
        other = Machine(self._volumes, self._notes, self.work)
        other.variables = dict(self.variables)
        other.variables[b"chosen"] = item.name
        other._functions = self._functions
        other._arguments = item.arguments
        other._texts = self._texts
        return other

    def entry(self, source, item, id):
        """Return the Entry that an item's block has loaded. Raises: Unsupported, Damaged."""
        if self._kernel is None:
            raise Unsupported("it loads no Linux" + (self._other or ""))
        return Entry(source, item.name, id, self._kernel, self._initrds, self._options)

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
            # That of an entry is $1 for its title.
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
            self._other = ", but " + shown(name)
            return False
        command = COMMANDS.get(name)
        if command is not None:
            try:
                return await command(self, words)
            except Exhausted:
                raise
            except (NotThere, Unsupported) as e:
                self._notes.add("grub.cfg: %s: %s" % (shown(name), e))
                self._other = ": %s" % e
                return False
        variable, equals, value = name.partition(b"=")
        if equals and variable and len(words) == 1:
            self.set(variable, value)
            return True
        self._notes.add("grub.cfg: the command %s is not known here" % shown(name))
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

    def _split(self, path):
        """Return (Volume, path on it). Raises NotThere."""
        if path[:1] == b"(":
            name, _, path = path[1:].partition(b")")
        else:
            name = self.value(b"root").lstrip(b"(").rstrip(b")")
        return self._volumes.by_grub(name), path

    async def look(self, how, path):
        """Tell what `test` asks about a path. Raises Exhausted."""
        try:
            volume, path = self._split(path)
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
        volume, path = self._split(path)
        raw = await text(volume, path)
        self.count(raw)
        return raw


# The commands: async functions of (Machine, words), which return a status.


async def _set(machine, words):
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        if equals:
            machine.set(name, value)
    return True


async def _unset(machine, words):
    for word in words[1:]:
        machine.variables.pop(word, None)
    return True


async def _test(machine, words):
    words = words[1:]
    return await grubtest.evaluate(words, machine.look)


async def _bracket(machine, words):
    if words[-1] != b"]":
        raise Damaged("a test in a GRUB script without its ]")
    return await grubtest.evaluate(words[1:-1], machine.look)


async def _load_env(machine, words):
    path = machine.value(b"prefix") + b"/grubenv"
    names = []
    at = 1
    while at < len(words):
        if words[at] in (b"-f", b"--file") and at + 1 < len(words):
            at += 1
            path = words[at]
        elif words[at][:7] == b"--file=":
            path = words[at][7:]
        elif words[at][:1] != b"-":
            names.append(words[at])
        at += 1
    volume, path = machine._split(path)
    found = grubenv.parse(await text(volume, path), machine._notes)
    for name, value in found.items():
        if not names or name in names:
            machine.set(name, value)
    return True


SEARCHED = {b"u": "uuid", b"fs-uuid": "uuid", b"l": "label", b"label": "label"}
SEARCHED.update({b"fs-label": "label", b"f": "file", b"file": "file"})


def _searched(words):
    """Read the arguments of search. Returns (kind, variable or None, what is searched or None)."""
    _, dot, of = words[0].partition(b".")
    if dot:
        # search.fs_uuid UUID VARIABLE HINT ...
        kind = {b"fs_uuid": "uuid", b"fs_label": "label"}.get(of, "file")
        return kind, (words + [b"", b"root"])[2] or b"root", words[1] if len(words) > 1 else None
    kind, variable = "file", None
    plain = []
    is_bare = is_hint = False
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        name = name.lstrip(b"-")
        if word[:1] != b"-":
            if not is_hint:
                plain.append(word)
            is_hint = False
        elif name in (b"s", b"set"):
            is_bare = not equals
            variable = value or b"root"
        elif name in SEARCHED:
            kind = SEARCHED[name]
            plain += [value] if equals else []
        else:
            is_hint = name[:4] == b"hint" and not equals
    if is_bare and len(plain) == 2:
        variable = plain[0]
    return kind, variable, plain[-1] if plain else None


async def _search(machine, words):
    kind, variable, wanted = _searched(words)
    if wanted is None:
        return False
    found = await machine._volumes.search(kind, wanted)
    if found is None:
        machine._notes.add("grub.cfg: search finds no %s %s" % (kind, shown(wanted)))
        return False
    if variable is not None:
        machine.set(variable, found.grub.encode())
    return True


async def _source(machine, words):
    raw = await machine.text(words[-1])
    await Script(machine, Block(raw, 0, len(raw))).run()
    return machine.status


async def _configfile(machine, words):
    machine.following = await machine.text(words[-1])
    machine.leaving = RETURN
    return True


async def _linux(machine, words):
    plain = words[1:]
    while plain and plain[0][:2] == b"--":
        plain = plain[1:]
    if not plain:
        raise Damaged("linux without a file")
    machine._kernel = None
    volume, path = machine._split(plain[0])
    if not await volume.exists(path):
        raise NotThere("%s has no kernel %s" % (volume.name, shown(path)))
    machine._kernel = Place(volume, path)
    machine._initrds = []
    machine._options = b" ".join([_quoted(each) for each in plain[1:]])
    return True


def _quoted(word):
    """Return a word of a command line as GRUB gives it to Linux."""
    for c in (b"\\", b"'", b'"'):
        word = word.replace(c, b"\\" + c)
    return b'"' + word + b'"' if word.find(b" ") >= 0 else word


async def _initrd(machine, words):
    found = []
    for word in words[1:]:
        if word[:2] != b"--":
            volume, path = machine._split(word)
            found.append(Place(volume, path))
    machine._initrds = found
    return True


async def _leave(machine, words):
    machine.leaving = {b"return": RETURN, b"break": BREAK, b"continue": CONTINUE}[words[0]]
    if words[0] == b"return" and len(words) > 1:
        machine.status = words[1] == b"0"
    return machine.status


COMMANDS = {
    b"set": _set,
    b"unset": _unset,
    b"test": _test,
    b"[": _bracket,
    b"load_env": _load_env,
    b"source": _source,
    b".": _source,
    b"configfile": _configfile,
    b"normal": _configfile,
}
COMMANDS.update(dict.fromkeys(LINUX, _linux))
COMMANDS.update(dict.fromkeys(INITRD, _initrd))
COMMANDS.update(dict.fromkeys((b"return", b"break", b"continue"), _leave))
COMMANDS.update(
    dict.fromkeys((b"search", b"search.fs_uuid", b"search.fs_label", b"search.file"), _search)
)
