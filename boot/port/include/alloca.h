#ifndef PVDUMP_ALLOCA_H
#define PVDUMP_ALLOCA_H

#define alloca __builtin_alloca

#endif
