/* MicroPython includes this file for size_t. */
#include <stddef.h>
