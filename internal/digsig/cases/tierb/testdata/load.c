#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	if (!dlopen(argv[1], RTLD_NOW))
		puts(dlerror());
	return 0;
}
