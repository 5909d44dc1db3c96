# The guest. Runs at CPL 3 in long mode with flat segments and an identity map; no stack, no calls, no interrupts.
#
# Registers that live:
#   r15 step counter        r14 control page of this vCPU      r13 block of the current phase
#   r12 deadline (TSC)      r11 TSC of the last stamp          rbp seed
#   r10 write cursor        r9  read cursor                    r8  steps left before the next look at the clock
# All else is scratch. The code is position independent and is copied into the guest.
#
# Control page: 0 steps, 8 now, 16 last stamp, 24 deadline, 32 address of the phase block (written by the host).
# Phase block:  0 chunk, 8 interval, 16 tolerance, 24 least sleep, 32 stamp interval, 40 stride, 48 entries,
#               56 logarithm of the entries if they take turns and 0 if they are drawn, 64 table.
# Table entry:  0 cut (of a lane: accesses per turn), 8 address of the alias, 16 address of the first page with flags, 24 pages.

    .pushsection .rodata.livemig_guest, "a"
    .balign 64
    .globl livemig_guest_start
livemig_guest_start:

.Lchunk:
    mov     r8, [r13]
.Lstep:
    # The number of the step (SplitMix64).
    mov     rax, r15
    imul    rax, [rip + .Lgamma]
    add     rax, rbp
    mov     rdx, rax
    shr     rdx, 30
    xor     rax, rdx
    imul    rax, [rip + .Lmix1]
    mov     rdx, rax
    shr     rdx, 27
    xor     rax, rdx
    imul    rax, [rip + .Lmix2]
    mov     rdx, rax
    shr     rdx, 31
    xor     rax, rdx
    mov     rcx, rax
    mov     rdx, [r13 + 56]
    test    rdx, rdx
    jnz     .Llane

    # The entry: an index, and its alias when what is left of the draw is above the cut.
    mul     qword ptr [r13 + 48]
    shl     rdx, 5
    lea     rsi, [r13 + rdx + 64]
    cmp     rax, [rsi]
    cmova   rsi, [rsi + 8]
    mov     rbx, [rsi + 16]

    test    bl, 4
    jnz     .Ldone
    test    bl, 1
    jnz     .Lsweep

    # A page at random, from a second number of the same draw.
.Lrandom:
    mov     rax, rcx
    shr     rax, 32
    xor     rax, rcx
    imul    rax, [rip + .Lmix3]
    mul     qword ptr [rsi + 24]
.Laccess:
    imul    rdx, [r13 + 40]
    mov     rdi, rbx
    and     rdi, -4096
    add     rdi, rdx
    test    bl, 2
    jnz     .Lread

    .globl livemig_guest_store1
livemig_guest_store1:
    inc     qword ptr [rdi]
    .globl livemig_guest_store2
livemig_guest_store2:
    mov     [rdi + 8], r15
    .globl livemig_guest_store3
livemig_guest_store3:
    inc     qword ptr [rdi + 4080]
    .globl livemig_guest_store4
livemig_guest_store4:
    mov     [rdi + 4088], r15
    .globl livemig_guest_stored
livemig_guest_stored:
.Ldone:
    inc     r15
    mov     [r14], r15
    dec     r8
    jnz     .Lstep

    # Pace: the deadline moves on by an interval; what is later than the tolerance is not caught up on.
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    add     r12, [r13 + 8]
    mov     rbx, r12
    sub     rbx, rax
    mov     rdx, rbx
    add     rdx, [r13 + 16]
    cmovs   r12, rax
    cmp     rbx, [r13 + 24]
    jge     .Lsleep
    mov     rdx, rax
    sub     rdx, r11
    cmp     rdx, [r13 + 32]
    jb      .Lchunk
    mov     [r14 + 8], rax
    mov     [r14 + 16], r11
    mov     r11, rax
    out     0x11, eax
    mov     r13, [r14 + 32]
    jmp     .Lchunk

.Lsleep:
    mov     [r14 + 8], rax
    mov     [r14 + 16], r11
    mov     r11, rax
    mov     [r14 + 24], r12
    out     0x10, eax
    mov     r13, [r14 + 32]
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    mov     rbx, r12
    sub     rbx, rax
    jg      .Lsleep
    jmp     .Lchunk

.Lread:
    mov     rax, [rdi]
    jmp     .Ldone

.Lsweep:
    xor     edx, edx
    test    bl, 2
    jnz     .Lsweep_read
    cmp     r10, [rsi + 24]
    cmovb   rdx, r10
    lea     r10, [rdx + 1]
    jmp     .Laccess
.Lsweep_read:
    cmp     r9, [rsi + 24]
    cmovb   rdx, r9
    lea     r9, [rdx + 1]
    jmp     .Laccess

    # Entries that take turns: this one's turns so far, times its accesses per turn. It has another when that gets to a whole number.
.Llane:
    mov     rdi, rcx
    mov     rcx, rdx
    mov     rax, r15
    shr     rax, cl
    mov     rcx, rdi
    mov     rsi, [r13 + 48]
    dec     rsi
    and     rsi, r15
    shl     rsi, 5
    lea     rsi, [r13 + rsi + 64]
    mul     qword ptr [rsi]
    add     rax, [rsi]
    jnc     .Ldone
    mov     rbx, [rsi + 16]
    test    bl, 1
    jz      .Lrandom
    mov     rax, rdx
    xor     edx, edx
    div     qword ptr [rsi + 24]
    jmp     .Laccess

    .balign 8
.Lgamma:
    .quad   0x9e3779b97f4a7c15
.Lmix1:
    .quad   0xbf58476d1ce4e5b9
.Lmix2:
    .quad   0x94d049bb133111eb
.Lmix3:
    .quad   0xd6e8feb86659fd93
    .globl livemig_guest_end
livemig_guest_end:
    .popsection
