/* Runs a changed copy of itself from a tmpfs of its own, in namespaces that whoever starts it makes; 77 says that it was not let. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

int main(int n, char **v)
{
	char b[4096];
	int from, to, got;

	if (n > 1)
		return 0;
	if ((from = open("/proc/self/exe", O_RDONLY)) < 0)
		return 2;
	if (mount("none", "/tmp", "tmpfs", 0, 0))
		return 4;
	if ((to = open("/tmp/copy", O_WRONLY | O_CREAT, 0755)) < 0)
		return 5;
	while ((got = read(from, b, sizeof(b))) > 0)
		if (write(to, b, got) != got)
			return 6;
	if (write(to, "changed", 7) != 7 || close(to))
		return 7;
	execl("/tmp/copy", "copy", "end", (char *)0);
	return errno == EPERM ? 77 : 8;
}
