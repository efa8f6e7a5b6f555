/* MicroPython includes it; nothing of it is used. */
#include <stddef.h>
