"""The prompt and scripts of pvboot, the image with MicroPython's compiler.

terminal, a module of C (boot/shell/terminal.c), has the keys and the line editor.
"""
