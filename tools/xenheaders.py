"""The values of constant expressions over Xen's public headers, from the C compiler.

Called by the tests that compare xenpv.abi and the embedded Xen with the headers. They come from
Debian's libxen-dev, unpacked into the cache; nothing of them is copied into the tree. The rule: the
compiler is the judge, so an expression may be anything constant: a name, a sizeof, an offsetof.
"""

from __future__ import annotations

import re

from tools import apt, cmodule

NAME = "_pvdump_xenheaders"
# Interface version: the newest the headers know. __XEN_TOOLS__ opens what only tools may see.
PROLOGUE = """
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#define __XEN_TOOLS__ 1
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen-compat.h>
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/features.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/elfnote.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#include <xenctrl.h>
"""


def evaluate(expressions: list[str], suite: str = "bookworm") -> dict[str, int]:
    """Return the value of each C expression. Raises CompileError."""
    root = apt.Suite(suite).unpack(["libxen-dev"], dependencies=False)
    cases = "\n".join(
        f"    case {i}: return (long long)({text});" for i, text in enumerate(expressions)
    )
    source = (
        f"{PROLOGUE}\nstatic long long value(int i)\n"
        f"{{\n    switch (i) {{\n{cases}\n    default: return 0;\n    }}\n}}\n"
    )
    folder = cmodule.build(
        NAME, "long long value(int i);", source, include=[root / "usr" / "include"]
    )
    module = cmodule.load(NAME, folder)
    return {text: module.lib.value(i) for i, text in enumerate(expressions)}


def offset(struct: str, member: str) -> str:
    """Return the expression for a member's offset; `struct` without the word struct."""
    return f"offsetof(struct {struct}, {member})"


def public(module: object) -> list[str]:
    """Return the names of a module's integer constants."""
    return [
        name
        for name, value in vars(module).items()
        if re.match(r"[A-Za-z]", name) and isinstance(value, int)
    ]
