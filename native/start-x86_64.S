/* Where the kernel begins, and how it is called: System V ABI for x86_64, syscall(2). */

	.globl	_start
	.type	_start, @function
_start:
	xor	%ebp, %ebp
	mov	%rsp, %rdi	/* argc, the arguments, the environment, the auxiliary vector */
	and	$-16, %rsp
	call	start
	ud2

	/* long system_call(long number, long a, long b, long c, long d, long e, long f) */
	.globl	system_call
	.type	system_call, @function
system_call:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret

	.section .note.GNU-stack, "", @progbits
