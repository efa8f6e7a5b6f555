"""The kernel's variables for drgn, without debug symbols: addresses of kallsyms, types of a table.

Registered with a drgn program by program.py. BTF names the types of functions and, in most kernels,
of per-CPU variables; of others only those in the table can be had, which are those that drgn's
helpers use. An array of which the table does not say the length is as long as its symbol.
Source: drgn/helpers/linux; the declarations in Linux 5.10 to 6.12.
"""

from __future__ import annotations

from typing import Optional

from drgn import FindObjectFlags, Object, Program, Type, TypeKind, sizeof

from ..arm.btftypes import FUNC, VAR
from .typefinder import TypeFinder

VARIABLES = {
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "__highest_present_section_nr": "unsigned long",
    "__per_cpu_offset": "unsigned long []",
    "_totalram_pages": "atomic_long_t",
    "arp_tbl": "struct neigh_table",
    "avenrun": "unsigned long [3]",
    "block_class": "struct class",
    "blockdev_superblock": "struct super_block *",
    "btf_idr": "struct idr",
    "btf_modules": "struct list_head",
    "bus_kset": "struct kset *",
    "cdev_map": "struct kobj_map *",
    "cgrp_dfl_root": "struct cgroup_root",
    "chrdevs": "struct char_device_struct *[255]",
    "class_kset": "struct kset *",
    "contig_page_data": "struct pglist_data",
    "crashing_cpu": "int",
    "hrtimer_bases": "struct hrtimer_cpu_base",
    "hstates": "struct hstate []",
    "hugetlb_max_hstate": "int",
    "idt_table": "gate_desc [256]",
    "init_fs": "struct fs_struct",
    "init_ipc_ns": "struct ipc_namespace",
    "init_mm": "struct mm_struct",
    "init_net": "struct net",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_uts_ns": "struct uts_namespace",
    "ioport_resource": "struct resource",
    "irq_desc_tree": "struct xarray",
    "jiffies": "volatile unsigned long",
    "link_idr": "struct idr",
    "linux_banner": "const char []",
    "major_names": "struct blk_major_name *[255]",
    "map_idr": "struct idr",
    "max_low_pfn": "unsigned long",
    "max_pfn": "unsigned long",
    "mem_section": "struct mem_section **",
    "memblock": "struct memblock",
    "min_low_pfn": "unsigned long",
    "modules": "struct list_head",
    "net_namespace_list": "struct list_head",
    "node_data": "struct pglist_data *[]",
    "node_states": "nodemask_t []",
    "nr_cpu_ids": "unsigned int",
    "nr_irqs": "int",
    "nr_node_ids": "unsigned int",
    "nr_swap_pages": "atomic_long_t",
    "nr_swapfiles": "unsigned int",
    "nr_swapper_spaces": "unsigned int []",
    "nr_vmap_nodes": "unsigned int",
    "page_offset_base": "unsigned long",
    "panic_cpu": "atomic_t",
    "pci_bus_type": "struct bus_type",
    "pci_root_buses": "struct list_head",
    "prb": "struct printk_ringbuffer *",
    "prog_idr": "struct idr",
    "root_task_group": "struct task_group",
    "runqueues": "struct rq",
    "saved_command_line": "char *",
    "slab_caches": "struct list_head",
    "slab_kset": "struct kset *",
    "softirq_vec": "struct softirq_action [10]",
    "sparse_irqs": "struct maple_tree",
    "swap_info": "struct swap_info_struct *[]",
    "swapper_spaces": "struct address_space *[]",
    "sysctl_overcommit_kbytes": "unsigned long",
    "sysctl_overcommit_ratio": "int",
    "sysfs_root_kn": "struct kernfs_node *",
    # Since Linux 6.15; older ones have zeros in place of one or two.
    "taint_flags": "const struct taint_flag [20]",
    "tainted_mask": "unsigned long",
    # R, S, D, T, t, X, Z, P, I: since Linux 4.14.
    "task_state_array": "const char * const [9]",
    "timekeeper_data": "struct tk_data []",
    "timer_bases": "struct timer_base []",
    "total_nr_irqs": "unsigned int",
    "total_swap_pages": "long",
    "vm_committed_as": "struct percpu_counter",
    "vm_event_states": "struct vm_event_state",
    "vm_node_stat": "atomic_long_t []",
    "vm_zone_stat": "atomic_long_t []",
    "vmap_area_list": "struct list_head",
    "vmap_area_root": "struct rb_root",
    "vmap_nodes": "struct vmap_node *",
    "vmap_zone_size": "unsigned int",
}


class VariableFinder:
    """A finder of variables, functions and constants.

    Args:
        types: finds the types that BTF names.
    """

    def __init__(self, types: TypeFinder) -> None:
        self._types = types

    def __call__(
        self, program: Program, name: str, flags: FindObjectFlags, filename: Optional[str]
    ) -> Optional[Object]:
        """Find an object, as drgn asks for it."""
        if filename is not None:
            return None
        kind = None
        if flags & FindObjectFlags.VARIABLE:
            kind = _declared(program, name) or self._types.of(name, VAR)
        if kind is None and flags & FindObjectFlags.FUNCTION:
            kind = self._types.of(name, FUNC)
        if kind is None:
            return self._types.constant(name) if flags & FindObjectFlags.CONSTANT else None
        try:
            symbol = program.symbol(name)
        except LookupError:
            return None
        return Object(program, _whole(program, kind, symbol.size), address=symbol.address)


def _declared(program: Program, name: str) -> Optional[Type]:
    """Return a variable's type by the table, None where the kernel has neither."""
    if name not in VARIABLES:
        return None
    try:
        return program.type(VARIABLES[name])
    except LookupError:
        return None


def _whole(program: Program, kind: Type, size: int) -> Type:
    """Return an array's type with the length that fits into so many bytes, another as it is."""
    if kind.kind != TypeKind.ARRAY or kind.length is not None:
        return kind
    length = size // sizeof(kind.type)
    return program.array_type(kind.type, length) if length else kind
