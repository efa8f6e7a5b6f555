"""A xenstore server: a tree of nodes, clients that take and give bytes, and two transports.

nodes.py, tree.py and transaction.py hold nodes; watches.py finds the listeners of a change;
domain.py holds domains and quotas. connection.py is one client, without I/O, outgoing.py its
packets; requests.py and toolstack.py do its requests. server.py holds all of this. unix.py serves
programs over a socket, pvxen's storering.py serves a guest over its shared page, and command.py is
`pvdump xenstored`.
"""
