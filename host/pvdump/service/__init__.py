"""What long-running commands share: signals, sockets, records of JSON, bounded complaints."""
