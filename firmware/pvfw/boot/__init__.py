"""Boot firmware: what a guest's own disk says is to be booted. Nothing here writes to a disk."""
