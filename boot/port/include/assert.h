/* The image is built with NDEBUG: assert only states what MicroPython has checked before. */
#undef assert
#define assert(condition) ((void)0)
#define static_assert _Static_assert
