"""Starting a kernel: room for it in memory, its boot_params, handing back, the jump. pvboot's."""
