"""VMCOREINFO's values: what the crashed kernel says of its own symbols, structures and numbers.

Used by pagetables and printk. The rule: the text may be overwritten, so a value counts only as the
kernel writes it and within bounds.
Source: Linux include/linux/vmcore_info.h.
"""

from xenpv.text import decimal, hexadecimal

from .errors import CoreError

U64 = (1 << 64) - 1
# No structure that is looked at has so many bytes.
SIZE_MAX = 4096


class Vmcoreinfo:
    """The values by their names.

    Args:
        text: function that returns the text of a key such as "SIZE(page)", "" without one.
    """

    def __init__(self, text):
        self._text = text

    def symbol(self, name):
        """Return a symbol's virtual address, or None where it is not given."""
        return hexadecimal(self._text("SYMBOL(%s)" % name), 1, U64)

    def number(self, name):
        """Return a number, which may be negative, or None where it is not given."""
        return self.value("NUMBER(%s)" % name)

    def value(self, key):
        """Return the decimal number of a whole key such as "LENGTH(zone.free_area)", or None."""
        text = self._text(key)
        if text[:1] != "-":
            return decimal(text, 0, U64)
        value = decimal(text[1:], 1, U64)
        return value if value is None else -value

    def size(self, name):
        """Return the bytes of a structure. Raises CoreError where they are not given."""
        return self._needed("SIZE(%s)" % name, 1)

    def offset(self, name):
        """Return the offset of a field. Raises CoreError where it is not given."""
        return self._needed("OFFSET(%s)" % name, 0)

    def has_offset(self, name):
        """Tell whether the offset of a field is given."""
        return self._text("OFFSET(%s)" % name) != ""

    def _needed(self, key, least):
        value = decimal(self._text(key), least, SIZE_MAX)
        if value is None:
            raise CoreError("VMCOREINFO has no usable %s" % key)
        return value
