"""The modes of the image: the crash dump, and the self-check when it is booted as firmware."""
