"""Watches of many domains, so that one whose handler stalls holds up nobody else.

dispatcher.py sorts watch events by the domain they belong to and is what a backend host uses;
queue.py is one domain's queue; workers.py are the threads; domains.py finds out which domains
there are; status.py tells how it stands, over a socket; run.py and pattern.py run a command for
each event of a pattern; command.py is `pvdump watches`.
"""
