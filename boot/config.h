/* The numbers that the build takes from image.yaml and gives as -D; a missing one is an error. And
 * the one number that image.yaml does not have. */
#ifndef PVDUMP_CONFIG_H
#define PVDUMP_CONFIG_H

#define WATCHDOG_SECONDS 30

#if !defined(HEAP_KIB) || !defined(POOL_PAGES) || !defined(STACK_KIB) || !defined(ENTRY_MODULE)
#error "the build defines HEAP_KIB, POOL_PAGES, STACK_KIB and ENTRY_MODULE"
#endif

#endif
