/* The image is built with NDEBUG; MicroPython's asserts say what it has checked already. */
#undef assert
#define assert(condition) ((void)0)
#define static_assert _Static_assert
