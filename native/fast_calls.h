/* What an object in other programs, without a C library of its own, needs of the kernel: see
 * syscall(2), and <asm/unistd.h> for the numbers. */
#pragma once
#include <asm/errno.h>
#include <asm/stat.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined __x86_64__
	long result;
	register long fourth __asm__("r10") = d, fifth __asm__("r8") = e, sixth __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
#elif defined __aarch64__
	register long call __asm__("x8") = number;
	register long first __asm__("x0") = a, second __asm__("x1") = b, third __asm__("x2") = c;
	register long fourth __asm__("x3") = d, fifth __asm__("x4") = e, sixth __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(first)
			 : "r"(call), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "memory");
	return first;
#else
#error "no system calls for this architecture"
#endif
}

/* Of whatever C library the program has; none of a program without one. */
extern int *__errno_location(void) __attribute__((weak));

/* Returns what a function of a C library does for a result of the kernel's. */
static inline int outcome(long result)
{
	if (result >= 0)
		return (int)result;
	if (__errno_location)
		*__errno_location() = (int)-result;
	return -1;
}
