"""A xenstore server: a tree of nodes, clients that take and give bytes, and two transports.

nodes.py, tree.py and transaction.py know nodes; watches.py who is told; domain.py domains and
quotas. connection.py is one client, without I/O; requests.py and toolstack.py say what it may ask.
server.py holds all of it. ring.py serves a guest over its shared page, unix.py programs over a
socket, and command.py is `pvdump xenstored`.
"""
