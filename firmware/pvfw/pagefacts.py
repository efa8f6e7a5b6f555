"""What is known of the crashed kernel's struct pages, and the classes that it suffices for.

Used by the page filter. There are two sources: VMCOREINFO, which the crashed kernel wrote, and the
facts of its BTF that the configuration brings, a dict. Both have VMCOREINFO's keys, such as
"SIZE(page)", "OFFSET(page._mapcount)", "LENGTH(zone.free_area)", "NUMBER(PG_lru)"; BTF also brings
"NUMBER(PG_head)" and "NUMBER(PGTY_buddy)", enumerators of enum pageflags and enum pagetype, which
VMCOREINFO has as PG_head_mask and PAGE_BUDDY_MAPCOUNT_VALUE. The rule: a class whose facts are
missing, impossible, or different in the two sources is kept, and the reason is told; there is no
table of kernel versions.
Source: Linux kernel/vmcore_info.c, include/linux/page-flags.h, mm_types.h; makedumpfile 1.7.6.
"""

from .errors import CoreError

# makedumpfile's -d. Zero pages, bit 0, are found where their content is read.
CACHE, CACHE_PRIVATE, USER, FREE = 2, 4, 8, 16
BY_STRUCT_PAGE = CACHE | CACHE_PRIVATE | USER | FREE
# In place of a value that no page has, and of an offset. Source: boot/hw/classify.h.
NONE = 1 << 32
PAGE_SIZE = 4096
# Linux has 11 orders of free blocks on this machine.
FREE_ORDERS_MAX = 16
# The fields of struct hw_filter that are facts, in their order.
FIELDS = (
    "flags mapping mapcount private compound refcount"
    " head lru swapcache private_flag slab poisoned anon"
    " buddy unaccepted slab_type hugetlb offline table free_orders"
    " order_at hugetlb_at hugetlb_mask hugetlb_value drop now"
).split()
TYPES = ("buddy", "unaccepted", "slab_type", "hugetlb", "offline", "table", "order_at")
# Numbers of the classes. Source: boot/hw/classify.h.
KEPT, CLASS_CACHE, CLASS_CACHE_PRIVATE = 0, 1, 2
SLAB, TABLE = 8, 9
CLASSES = 10
# Bits of the classes that are left out wherever they are known: user, free and so on.
ALWAYS = ((1 << SLAB) - 1) & ~((1 << KEPT) | (1 << CLASS_CACHE) | (1 << CLASS_CACHE_PRIVATE))


class Facts:
    """The facts of both sources.

    Args:
        info: vmcoreinfo.Vmcoreinfo.
        given: dict of the configuration's, keys as above; empty without one.
    """

    def __init__(self, info, given):
        self._info = info
        self._given = {}
        for key in given:
            self._given[key] = given[key]
            if key[:12] == "NUMBER(PGTY_":
                self._given[_type_key(key[12:-1])] = _mapcount(given[key])
        head = given.get("NUMBER(PG_head)")
        if head is not None:
            # A flag that cannot be is no mask either.
            self._given["NUMBER(PG_head_mask)"] = 1 << head if 0 <= head < 64 else 0

    def has(self, key):
        """Tell whether a source has it."""
        return self._info.value(key) is not None or key in self._given

    def get(self, key, least, most):
        """Return a fact. Raises CoreError where it is missing, impossible or contradicted."""
        told, given = self._info.value(key), self._given.get(key)
        if told is None and given is None:
            raise CoreError("%s is not known" % key)
        if "_MAPCOUNT_VALUE" in key:
            # A u32, which some kernels write as a negative number.
            told, given = _u32(told), _u32(given)
        if told is not None and given is not None and told != given:
            raise CoreError(
                "%s is %d in VMCOREINFO and %d in the configuration" % (key, told, given)
            )
        value = given if told is None else told
        if not least <= value <= most:
            raise CoreError("%s cannot be %d" % (key, value))
        return value

    def symbol(self, name):
        """Return a symbol's virtual address. Raises CoreError where it is not known."""
        value = self._info.symbol(name)
        if value is None:
            raise CoreError("SYMBOL(%s) is not known" % name)
        return value

    def offset(self, field, size, width):
        """Return the offset of a field of `width` bytes in a structure of `size`, aligned."""
        key = "OFFSET(%s)" % field
        value = self.get(key, 0, size - width)
        if value % width:
            raise CoreError("%s cannot be %d" % (key, value))
        return value

    def flag(self, name):
        """Return the mask of a flag of struct page."""
        return 1 << self.get("NUMBER(%s)" % name, 0, 63)

    def type(self, name):
        """Return the value of page._mapcount that says a page's type, a u32."""
        # -1 is a page that is not mapped, and what is not negative counts mappings.
        return self.get(_type_key(name), 1 << 31, (1 << 32) - 2)


def _type_key(name):
    return "NUMBER(PAGE_%s_MAPCOUNT_VALUE)" % name.upper()


def _mapcount(page_type):
    """Return page._mapcount of a type; 0, which is none, where there is no such type."""
    return page_type << 24 if 0x80 <= page_type < 0xFF else 0


def _u32(value):
    return value if value is None else value & 0xFFFFFFFF


class Layout:
    """What the filter is told of struct page for a level.

    Args:
        facts: Facts.
        level: as makedumpfile's -d.

    Attributes:
        size: bytes of struct page.
        fields: dict of the values of FIELDS.
        kept: list of (class, why) of the classes that the level leaves out, and that are kept.
        first: bits of the classes of which a dump's first pages are, as far as they are known.

    Raises CoreError where no page can be judged.
    """

    def __init__(self, facts, level):
        self.size = facts.get("SIZE(page)", 64, PAGE_SIZE)
        if self.size & (self.size - 1):
            raise CoreError("SIZE(page) is %d, not a power of two" % self.size)
        self.kept = []
        self._facts = facts
        flags = self._offset("flags")
        self.fields = {}
        for name in FIELDS:
            self.fields[name] = NONE if name in TYPES else 0
        # What is not known is read as some field and compared with what it cannot be.
        for name in ("flags", "mapping", "mapcount", "private", "refcount"):
            self.fields[name] = flags
        if facts.has("OFFSET(page.compound_info)"):
            self.fields["compound"] = self._offset("compound_info")
        else:
            self.fields["compound"] = self._offset("compound_head")
        for wanted, name, find in (
            (BY_STRUCT_PAGE, "large", self._large),
            (CACHE | CACHE_PRIVATE, "cache", self._cache),
            (USER, "user", self._user),
            (USER, "hugetlb", self._hugetlb),
            (FREE, "free", self._free),
            (FREE, "unaccepted", self._unaccepted),
            (BY_STRUCT_PAGE, "poisoned", self._poisoned),
            (BY_STRUCT_PAGE, "offline", self._offline),
        ):
            if level & wanted:
                self._try(name, find)
        self.first = 0
        for bit, find in ((1 << SLAB, self._slab), (1 << TABLE, self._table)):
            try:
                self._take(find())
                self.first |= bit
            except CoreError:
                pass
        self.fields["now"] = (1 << CLASSES) - 1
        self.fields["drop"] |= ALWAYS
        if level & (CACHE | CACHE_PRIVATE):
            self.fields["drop"] |= 1 << CLASS_CACHE
        if level & CACHE_PRIVATE:
            self.fields["drop"] |= 1 << CLASS_CACHE_PRIVATE

    def _try(self, name, find):
        try:
            self._take(find())
        except CoreError as e:
            self.kept.append((name, str(e)))

    def _take(self, found):
        for field in found:
            self.fields[field] = found[field]

    def _offset(self, field, width=8):
        return self._facts.offset("page." + field, self.size, width)

    # Each gives the fields by which its class is known. A large page is known by its head.

    def _large(self):
        return {"head": self._head(), "order_at": self._order_at()}

    def _cache(self):
        facts = self._facts
        return {
            "mapping": self._offset("mapping"),
            "lru": facts.flag("PG_lru"),
            "swapcache": facts.flag("PG_swapcache") | facts.flag("PG_swapbacked"),
            "private_flag": facts.flag("PG_private"),
        }

    def _user(self):
        return self._with_slab({"mapping": self._offset("mapping"), "anon": 1})

    def _hugetlb(self):
        found = {"head": self._head()}
        way = self._way()
        if way == "type":
            found["mapcount"] = self._offset("_mapcount", 4)
            found["hugetlb"] = self._facts.type("hugetlb")
        elif way == "flag":
            found["hugetlb_at"] = self._offset("flags")
            found["hugetlb_mask"] = found["hugetlb_value"] = self._facts.flag("PG_hugetlb")
        else:
            at = self._second("compound_dtor", "_folio_dtor")
            if at > self.size - 8:
                raise CoreError("compound_dtor cannot be at %d" % at)
            found["hugetlb_at"] = at
            found["hugetlb_mask"] = 0xFF
            found["hugetlb_value"] = self._facts.get("NUMBER(HUGETLB_PAGE_DTOR)", 1, 255)
        return found

    def _free(self):
        return self._with_slab(
            {
                "mapcount": self._offset("_mapcount", 4),
                "refcount": self._offset("_refcount", 4),
                "private": self._offset("private"),
                "buddy": self._facts.type("buddy"),
                "free_orders": self._free_orders(),
            }
        )

    def _unaccepted(self):
        return {
            "mapcount": self._offset("_mapcount", 4),
            "refcount": self._offset("_refcount", 4),
            "unaccepted": self._facts.type("unaccepted"),
            "free_orders": self._free_orders(),
        }

    def _poisoned(self):
        return {"poisoned": self._facts.flag("PG_hwpoison")}

    def _offline(self):
        return self._with_slab(
            {"mapcount": self._offset("_mapcount", 4), "offline": self._facts.type("offline")}
        )

    def _free_orders(self):
        return self._facts.get("LENGTH(zone.free_area)", 1, FREE_ORDERS_MAX)

    def _slab(self):
        return self._with_slab({"head": self._head(), "order_at": self._order_at()})

    def _table(self):
        return {"mapcount": self._offset("_mapcount", 4), "table": self._facts.type("table")}

    def _with_slab(self, found):
        """Add how a slab is known: by a flag before Linux 6.10, by its type from then on."""
        facts = self._facts
        flag, page_type = facts.has("NUMBER(PG_slab)"), facts.has(_type_key("slab"))
        if not flag and not page_type:
            raise CoreError("neither NUMBER(PG_slab) nor %s is known" % _type_key("slab"))
        if flag:
            found["slab"] = facts.flag("PG_slab")
        if page_type:
            found["mapcount"] = self._offset("_mapcount", 4)
            found["slab_type"] = facts.type("slab")
        return found

    def _head(self):
        mask = self._facts.get("NUMBER(PG_head_mask)", 1, (1 << 64) - 1)
        if mask & (mask - 1):
            raise CoreError("NUMBER(PG_head_mask) cannot be %d" % mask)
        return mask

    def _way(self):
        """Return how a hugetlb page is known: from Linux 6.9 on by its "type", in 6.6 to 6.8 by a
        "flag" of its second struct page, before by the number of its destructor, "dtor"."""
        facts = self._facts
        ways = []
        if facts.has(_type_key("hugetlb")):
            ways.append("type")
        if facts.has("NUMBER(PG_hugetlb)"):
            ways.append("flag")
        if facts.has("NUMBER(HUGETLB_PAGE_DTOR)"):
            ways.append("dtor")
        if len(ways) != 1:
            raise CoreError(
                "hugetlb pages are known by more than one mark: %s" % ", ".join(ways)
                if ways
                else "no mark of hugetlb pages is known"
            )
        return ways[0]

    def _order_at(self):
        """Return where a large page's order is in its second struct page, a byte."""
        named = self._facts.has("OFFSET(page.compound_order)") or self._facts.has(
            "OFFSET(folio._folio_order)"
        )
        if named:
            return self._second("compound_order", "_folio_order")
        if self._way() == "dtor":
            raise CoreError("the place of a large page's order is not known")
        # From Linux 6.6 on it is the low byte of the second page's flags.
        return self._offset("flags")

    def _second(self, of_page, of_folio):
        """Return the offset of a byte in the second struct page, by its name in either."""
        if self._facts.has("OFFSET(page.%s)" % of_page):
            return self._offset(of_page, 1)
        # Linux 6.3 to 6.5: struct folio lies over the struct pages.
        return self._facts.get("OFFSET(folio.%s)" % of_folio, self.size, 2 * self.size - 1) - (
            self.size
        )
