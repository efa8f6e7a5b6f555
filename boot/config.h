/* Settings of the body. The build passes those of image.yaml with -D; a missing one is an error. */
#ifndef PVDUMP_CONFIG_H
#define PVDUMP_CONFIG_H

#define WATCHDOG_SECONDS 30 /* not in image.yaml */

#if !defined(HEAP_KIB) || !defined(POOL_PAGES) || !defined(STACK_KIB) || !defined(ENTRY_MODULE)
#error "the build defines HEAP_KIB, POOL_PAGES, STACK_KIB and ENTRY_MODULE"
#endif

#endif
