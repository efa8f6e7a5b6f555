"""The parts that long-running commands share: signals, sockets, records, bounded complaints."""
