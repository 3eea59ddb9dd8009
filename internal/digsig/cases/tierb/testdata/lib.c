#include <stdio.h>

__attribute__((constructor)) static void loaded(void)
{
	puts("loaded");
	fflush(stdout);
}

unsigned int la_version(unsigned int v) { return v; }
