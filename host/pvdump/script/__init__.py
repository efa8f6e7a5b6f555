"""Guests that are Python programs: scripts for pvboot, and what xl needs to start them.

text.py makes the one text that pvboot takes, of a script and the modules that come with it.
check.py finds what its Python lacks, with marks.py in the marks of the text, with names.py among
names and imports; inside.py is what it has. reach.py looks at all that is imported. image.py finds
pvboot, config.py has xl's configuration, folder.py writes all of it. command.py is `pvdump script`.
"""
