"""Guests that are Python programs: scripts for pvboot, and what xl needs to start them.

text.py makes the one text that pvboot takes, of a script and the modules that come with it;
check.py finds what its Python lacks, by what inside.py knows of it; image.py finds pvboot;
config.py has xl's configuration; folder.py writes all of it. command.py is `pvdump script`.
"""
