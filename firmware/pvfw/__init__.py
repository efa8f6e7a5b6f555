"""What the image does: the crash dump, and the self-check of a guest that boots it as firmware."""
