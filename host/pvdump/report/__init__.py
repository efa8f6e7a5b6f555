"""What a dump says of the crash: `pvdump report` and `pvdump drgn`."""
