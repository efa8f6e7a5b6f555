"""A xenstore server: a tree of nodes, connections that take and give bytes, and a ring transport.

tree.py knows nodes, permissions and transactions; connection.py one client's requests, replies and
watches, without I/O; server.py holds both together; ring.py serves a guest over its shared page.
"""
