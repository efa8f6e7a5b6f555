/* MicroPython includes this file and uses nothing of it. */
#include <stddef.h>
