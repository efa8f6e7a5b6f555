/* What the build gives as -D out of image.yaml, checked here so that a missing one is an error; and
 * the one number that image.yaml does not have. */
#ifndef PVDUMP_CONFIG_H
#define PVDUMP_CONFIG_H

#define WATCHDOG_SECONDS 30

#if !defined(HEAP_KIB) || !defined(POOL_PAGES) || !defined(STACK_KIB) || !defined(ENTRY_MODULE)
#error "the build defines HEAP_KIB, POOL_PAGES, STACK_KIB and ENTRY_MODULE"
#endif

#endif
