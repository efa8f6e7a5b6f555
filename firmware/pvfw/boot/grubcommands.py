"""GRUB's commands that say what is booted: variables, search, tests, files, linux, initrd.

A table for grubmachine.py. Each is an async function of (Machine, words), which returns a status.
Source: GRUB manual, "Available commands".
"""

from . import grubenv, grubtest
from .entries import Place, choice
from .errors import Damaged, NotThere
from .grubscript import BREAK, CONTINUE, RETURN, Block, Script
from .nodes import shown

LINUX = (b"linux", b"linux16", b"linuxefi")
INITRD = (b"initrd", b"initrd16", b"initrdefi")


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
    volume, path = machine.split(path)
    found = grubenv.parse(await choice(volume, path), machine.notes)
    if volume.trust is not None:
        # What nobody has signed does not get into the script.
        machine.saved = found.get(b"saved_entry")
        return True
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
    is_hint = False
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        name = name.lstrip(b"-")
        if word[:1] != b"-":
            if not is_hint:
                plain.append(word)
            is_hint = False
        elif name in (b"s", b"set"):
            variable = value or b"root"
        elif name in SEARCHED:
            kind = SEARCHED[name]
            plain += [value] if equals else []
        else:
            is_hint = name[:4] == b"hint" and not equals
    return kind, variable, plain[0] if plain else None


async def _search(machine, words):
    kind, variable, wanted = _searched(words)
    if wanted is None:
        return False
    found = await machine.volumes.search(kind, wanted)
    if found is None:
        machine.notes.add("grub.cfg: search finds no %s %s" % (kind, shown(wanted)))
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
    machine.kernel = None
    volume, path = machine.split(plain[0])
    if not await volume.exists(path):
        raise NotThere("%s has no kernel %s" % (volume.name, shown(path)))
    machine.kernel = Place(volume, path)
    machine.initrds = []
    machine.options = b" ".join([_quoted(each) for each in plain[1:]])
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
            volume, path = machine.split(word)
            found.append(Place(volume, path))
    machine.initrds = found
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
