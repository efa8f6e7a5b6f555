"""The xenstore client: packets and session without I/O, the ring, and the operations on nodes."""
