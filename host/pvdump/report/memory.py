"""What a dump's guest used its memory for, by drgn.

Used by gather.py. Source: drgn/helpers/linux/mm.py, vmstat.py; Linux fs/proc/meminfo.c.
"""

from __future__ import annotations

from itertools import islice

from drgn import Program
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import totalram_pages, vm_commit_limit, vm_memory_committed
from drgn.helpers.linux.slab import slab_total_usage
from drgn.helpers.linux.swap import swap_total_usage, total_swapcache_pages
from drgn.helpers.linux.vmstat import global_node_page_state, global_zone_page_state, nr_free_pages

from .facts import Memory

KIB = 1024
INODES_MAX = 65536  # of block devices; a list that damage may have made endless


def memory(program: Program) -> Memory:
    """Count the memory of a guest.

    Raises:
        LookupError, drgn.FaultError: the dump lacks what that needs.
    """
    page = program["PAGE_SIZE"].value_()

    def pages(item: str) -> int:
        constant = program[item]
        # Of page tables, zones counted the pages before 5.11.
        in_zones = constant.type_.tag == "zone_stat_item"
        state = global_zone_page_state if in_zones else global_node_page_state
        found: int = state(program, constant)
        return found

    total, free = totalram_pages(program), nr_free_pages(program)
    slab = slab_total_usage(program).total_pages
    file, buffers = pages("NR_FILE_PAGES"), _buffers(program)
    classes = {
        "free": free,
        "programs": pages("NR_ANON_MAPPED"),
        "files": file - pages("NR_SHMEM"),
        "shared, tmpfs": pages("NR_SHMEM"),
        "slab": slab,
        "page tables": pages("NR_PAGETABLE"),
        "kernel stacks": pages("NR_KERNEL_STACK_KB") * KIB // page,
    }
    # Of drivers, per-CPU variables, vmalloc: what no counter has.
    classes["other kernel"] = max(total - sum(classes.values()), 0)
    swap = swap_total_usage(program)
    return Memory(
        total * page,
        {name: count * page for name, count in classes.items()},
        free * page,
        buffers * page,
        (file - total_swapcache_pages(program) - buffers) * page,
        slab * page,
        swap.pages * page,
        swap.used_pages * page,
        vm_commit_limit(program) * page,
        vm_memory_committed(program) * page,
    )


def _buffers(program: Program) -> int:
    """Count the pages of block devices, as drgn's nr_blockdev_pages() does."""
    listed = program["blockdev_superblock"].s_inodes.address_of_()
    inodes = list_for_each_entry("struct inode", listed, "i_sb_list")
    return sum(inode.i_mapping.nrpages.value_() for inode in islice(inodes, INODES_MAX))
