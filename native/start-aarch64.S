/* Where the kernel begins, and how it is called: Procedure Call Standard for Arm64, syscall(2). */

	.globl	_start
	.type	_start, %function
_start:
	mov	x29, #0
	mov	x30, #0
	mov	x0, sp		/* argc, the arguments, the environment, the auxiliary vector */
	bl	start
	brk	#1

	/* long system_call(long number, long a, long b, long c, long d, long e, long f) */
	.globl	system_call
	.type	system_call, %function
system_call:
	mov	x8, x0
	mov	x0, x1
	mov	x1, x2
	mov	x2, x3
	mov	x3, x4
	mov	x4, x5
	mov	x5, x6
	svc	#0
	ret

	.section .note.GNU-stack, "", %progbits
