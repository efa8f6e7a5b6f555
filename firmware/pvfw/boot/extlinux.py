"""extlinux.conf, as U-Boot's menus, Debian's u-boot-menu and Alpine's update-extlinux write it.

One of the sources. Rules: the first file of PATHS on any volume that gives an entry counts; a path
that does not begin with / is relative to the file's folder; what boots no Linux is noted.
Source: the Syslinux Project, doc/syslinux.txt; U-Boot doc/develop/distro.rst.
"""

from .entries import Entry, Menu, Place, lines, pair, text, text_or_none
from .errors import BootError, Damaged, Exhausted
from .nodes import shown
from .volumes import number

FOLDERS = (b"/boot/extlinux", b"/extlinux", b"/boot", b"", b"/boot/syslinux", b"/syslinux")
NAMES = (b"extlinux.conf", b"syslinux.cfg")
INCLUDES_MAX = 8
LABELS_MAX = 128
TENTHS_MAX = 36000


async def look(volumes, notes):
    """Find the entries. Returns: Menu. Raises: Exhausted, XenError."""
    for volume in volumes.ordered():
        for folder in FOLDERS:
            for name in NAMES:
                path = folder + b"/" + name
                try:
                    raw = await text_or_none(volume, path)
                    if raw is None:
                        continue
                    menu = await _Config(volume, folder, notes).read(raw, path)
                except Exhausted:
                    raise
                except BootError as e:
                    notes.add("%s:%s passed over: %s" % (volume.name, shown(path), e))
                    continue
                if menu.entries:
                    return menu
    return Menu()


class _Label:
    """What a LABEL says; the first one, without a name, has what holds for all."""

    def __init__(self, id, append):
        self.id = id
        self.name = id
        self.kernel = None
        self.initrds = b""
        self.append = append


class _Config:
    def __init__(self, volume, folder, notes):
        self._volume = volume
        self._folder = folder
        self._notes = notes
        self._labels = [_Label(b"", b"")]
        self._default = self._chosen = None
        self._includes = 0
        self._menu = Menu()

    async def read(self, raw, path):
        await self._lines(raw)
        source = "extlinux %s:%s" % (self._volume.name, shown(path))
        for label in self._labels[1:]:
            if label.kernel is None:
                self._notes.add("%s: %s passed over: no Linux" % (source, shown(label.id)))
                continue
            self._menu.add(self._entry(source, label))
        wanted = self._default or self._chosen
        for i, entry in enumerate(self._menu.entries):
            if wanted is not None and entry.id.encode() == wanted:
                self._menu.default = i
        return self._menu

    async def _lines(self, raw):
        for each in lines(raw):
            key, value = pair(each)
            key = key.lower()
            if key == b"include":
                await self._include(pair(value + b" ")[0] if value else value)
            else:
                self._line(key, value)

    async def _include(self, path):
        self._includes += 1
        if self._includes > INCLUDES_MAX:
            raise Damaged("more than %d includes" % INCLUDES_MAX)
        await self._lines(await text(self._volume, self._path(path)))

    def _line(self, key, value):
        label = self._labels[-1]
        if key == b"label":
            if len(self._labels) > LABELS_MAX:
                raise Damaged("more than %d labels" % LABELS_MAX)
            self._labels.append(_Label(value, self._labels[0].append))
        elif key in (b"kernel", b"linux"):
            is_linux = not value.lower().endswith(b".c32")
            label.kernel = value if value and is_linux else None
        elif key == b"initrd":
            label.initrds = value
        elif key == b"append":
            label.append = b"" if value == b"-" else value
        elif key in (b"default", b"ontimeout"):
            # A name of a label; or a menu's program, beside which MENU DEFAULT counts.
            if key == b"ontimeout" or not value.lower().endswith(b".c32"):
                self._default = value
        elif key == b"timeout":
            tenths = number(value, TENTHS_MAX)
            self._menu.timeout = None if tenths is None else (tenths + 9) // 10
        elif key == b"menu" and value:
            kind, rest = pair(value)
            if kind.lower() == b"label":
                label.name = rest.replace(b"^", b"")
            elif kind.lower() == b"default" and len(self._labels) > 1:
                self._chosen = label.id

    def _entry(self, source, label):
        options = []
        initrds = label.initrds
        for word in label.append.split():
            if word[:7].lower() == b"initrd=":
                initrds = initrds or word[7:]
            else:
                options.append(word)
        names = initrds.replace(b",", b" ").split()
        places = [Place(self._volume, self._path(each)) for each in names]
        kernel = Place(self._volume, self._path(label.kernel))
        return Entry(source, label.name, label.id, kernel, places, b" ".join(options))

    def _path(self, path):
        return path if path[:1] == b"/" else self._folder + b"/" + path
