/* What is typed at the PV console, for MicroPython's line editor, and Ctrl-C. */
#ifndef PVDUMP_SHELL_TERMINAL_H
#define PVDUMP_SHELL_TERMINAL_H

/* Called by the interpreter's loop after some thousand branches. */
void terminal_poll(void);

#endif
