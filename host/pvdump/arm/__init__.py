"""The configuration of the dump image, made when it is armed.

btf.py reads the types of the running kernel, layout.py takes from them what the page filter needs,
recipient.py reads the keys that a dump is encrypted to, settings.py what a person asks for.
blob.py makes the bytes, whose layout is pvfw/config.py's. command.py is `pvdump arm`.
"""
