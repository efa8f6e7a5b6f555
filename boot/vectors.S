/*
 * The code that the IDT points to (trap.c fills it): a stub for each exception, and one for all
 * other vectors. A stub pushes the fields of struct trap_frame that the CPU has not pushed.
 * Interrupts are never enabled.
 */
    .section .text.vectors, "ax", @progbits

    .altmacro
    .macro stub vector
    .balign 16
    .if !((\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17) || \
          (\vector == 21) || (\vector == 29) || (\vector == 30))
    push $0
    .endif
    push $\vector
    jmp trap_common
    .endm

    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 33
    stub %vector
    .set vector, vector + 1
    .endr

trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call trap
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

/* void trap_leave(void *stack_top, void (*next)(void)): call next on another stack; never
 * returns. */
    .globl trap_leave
trap_leave:
    mov %rdi, %rsp
    xor %ebp, %ebp
    call *%rsi
    ud2

    .section .note.GNU-stack, "", @progbits
