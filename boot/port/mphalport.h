/* MicroPython asks for this file; what it wants of it is size_t. */
#include <stddef.h>
