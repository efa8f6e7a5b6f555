"""Watches of many domains; a domain whose handler stalls holds up no other.

dispatcher.py sorts watch events by domain, for backend hosts and for run.py. queue.py is one
domain's queue, queues.py all of them, workers.py the threads, domains.py the look at which domains
there are. status.py is the state of the queues, server.py the socket that gives it. run.py,
pattern.py and guard.py run a command for each event of a pattern. command.py is `pvdump watches`.
"""
