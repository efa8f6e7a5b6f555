"""Guests that are Python programs: scripts for pvboot, and what xl needs to start them.

text.py makes the one text that pvboot takes, of a script and the modules that come with it;
check.py finds what its Python lacks, marks.py in the marks of the text, by what inside.py knows of
it; reach.py does so for all that is imported. image.py finds pvboot; config.py has xl's
configuration; folder.py writes all of it. command.py is `pvdump script`.
"""
