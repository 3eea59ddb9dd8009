//go:build linux

package enforcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Compile makes a program of a line of C and returns its path. It is made once for each test binary.
func Compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Fatal("no C compiler here; run: apt-get install gcc libc6-dev")
	}
	compiled.Lock()
	defer compiled.Unlock()
	name := source + "\x00" + fmt.Sprint(flags)
	if p, ok := compiled.paths[name]; ok {
		return bytesToFile(t, p)
	}
	dir := t.TempDir()
	c := filepath.Join(dir, "p.c")
	if err := os.WriteFile(c, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "p")
	if b, err := exec.Command("gcc", append(append([]string{"-O1", "-w", "-o", out, c}, flags...), "-ldl")...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	compiled.paths[name] = b
	return out
}

var compiled = struct {
	sync.Mutex
	paths map[string][]byte
}{paths: map[string][]byte{}}

func bytesToFile(t testing.TB, b []byte) string {
	p := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(p, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// Put copies a file to a path and makes it executable.
func Put(t testing.TB, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// Outcome is how a program went.
type Outcome struct {
	Code   int    // exit code, 128 and the number of a signal; -1: it did not start
	Err    error  // why it did not start
	Output string // of both
}

// Denied says whether the start was refused with EPERM, or what ran says that it was.
func (o Outcome) Denied() bool {
	return errors.Is(o.Err, syscall.EPERM) || o.Err == nil && o.Code == DeniedCode
}

// Ran says whether the program ran to a good end.
func (o Outcome) Ran() bool { return o.Err == nil && o.Code == 0 }

// DeniedCode is what the test's own programs exit with when something gave them EPERM.
const DeniedCode = 77

// Exec runs a program to its end.
func Exec(argv ...string) Outcome { return ExecEnv(nil, argv...) }

// ExecEnv is Exec with more environment.
func ExecEnv(env []string, argv ...string) Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	// A child of another Exec has the pipe too until it executes, and that waits for the enforcer, seconds for a big file.
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return Outcome{Code: code, Output: out.String()}
	case err != nil:
		return Outcome{Code: -1, Err: err, Output: out.String()}
	}
	return Outcome{Output: out.String()}
}

// Programs in C. Each exits 0 when it could do what it is for, and DeniedCode when the kernel said EPERM.
const (
	Hello = `int main(){return 0;}`
	// Lib is a shared object with a constructor that leaves a trace and a function.
	Lib = `#include <unistd.h>
__attribute__((constructor)) static void c(){write(1,"CONSTRUCTED\n",12);} int answer(){return 42;}`
	// Dlopen loads its argument.
	Dlopen = `#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(int n,char**v){void*h=dlopen(v[1],RTLD_NOW); if(!h){const char*e=dlerror();puts(e);return strstr(e,"not permitted")?77:1;} return 0;}`
	// MapExec maps its argument executable through a descriptor that is open already.
	Sleep = `#include <unistd.h>
int main(){write(1,"up\n",3);for(;;)pause();}`
)

// More programs.
const (
	// MapFD maps the file of descriptor 3 executable and calls its first octets, which are code.
	MapFD = `#include <sys/mman.h>
#include <errno.h>
int main(){void*p=mmap(0,4096,PROT_READ|PROT_EXEC,MAP_PRIVATE,3,0);if(p==MAP_FAILED)return errno==1?77:1;return ((int(*)(void))p)()==42?0:1;}`
	// MapProtect opens its argument as data and makes it executable afterwards.
	MapProtect = `#include <sys/mman.h>
#include <fcntl.h>
#include <errno.h>
int main(int n,char**v){int f=open(v[1],O_RDONLY);if(f<0)return errno==1?77:2;void*p=mmap(0,4096,PROT_READ,MAP_PRIVATE,f,0);
if(p==MAP_FAILED)return 3;if(mprotect(p,4096,PROT_READ|PROT_EXEC))return 77;return ((int(*)(void))p)()==42?0:1;}`
	// ReadImplies has what it reads mapped executable by a personality.
	ReadImplies = `#include <sys/mman.h>
#include <sys/personality.h>
#include <fcntl.h>
int main(int n,char**v){personality(READ_IMPLIES_EXEC);int f=open(v[1],O_RDONLY);void*p=mmap(0,4096,PROT_READ,MAP_PRIVATE,f,0);
if(p==MAP_FAILED)return 77;return ((int(*)(void))p)()==42?0:1;}`
	// Anonymous reads its argument into memory that may be written and executed.
	Anonymous = `#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>
int main(int n,char**v){int f=open(v[1],O_RDONLY);char*p=mmap(0,4096,7,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
if(p==MAP_FAILED)return 77;read(f,p,4096);return ((int(*)(void))p)()==42?0:1;}`
	// Poke writes code into another process by ptrace.
	Poke = `#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <errno.h>
#include <string.h>
__attribute__((noinline,aligned(4096))) int f(void){return 1;}
int main(){int p=fork();if(!p){ptrace(PTRACE_TRACEME);raise(19);_exit(f()==42?0:1);}
int s;waitpid(p,&s,0);
#ifdef __aarch64__
char c[8]={0x40,5,0x80,0x52,0xc0,3,0x5f,0xd6};
#else
char c[8]={0xb8,42,0,0,0,0xc3,0x90,0x90};
#endif
long w;memcpy(&w,c,8);
if(ptrace(PTRACE_POKETEXT,p,(void*)f,w))return 77;ptrace(PTRACE_CONT,p,0,0);waitpid(p,&s,0);return WIFEXITED(s)?WEXITSTATUS(s):2;}`
	// Memfd executes its argument from memory.
	Memfd = `#define _GNU_SOURCE
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>
extern char**environ;
int main(int n,char**v){int f=open(v[1],O_RDONLY),m=memfd_create("x",0);if(m<0)return errno==EACCES?77:1;char b[65536];int k;
while((k=read(f,b,sizeof b))>0)write(m,b,k);char*a[]={"x",0};fexecve(m,a,environ);return errno==EACCES||errno==EPERM?77:1;}`
	// FDExec executes a file by a descriptor after it was unlinked.
	FDExec = `#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>
#include <stdio.h>
extern char**environ;
int main(int n,char**v){int f=open(v[1],O_PATH);if(f<0)return 2;unlink(v[1]);char p[64];sprintf(p,"/proc/self/fd/%d",f);char*a[]={"x",0};
execve(p,a,environ);return errno==EPERM?77:1;}`
	// Ask asks whether its argument may be executed (AT_EXECVE_CHECK).
	Ask = `#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>
#include <sys/syscall.h>
int main(int n,char**v){char*a[]={v[1],0};long r=syscall(SYS_execveat,AT_FDCWD,v[1],a,a+1,0x10000);return r==0?0:errno==EPERM?77:errno==EINVAL?3:1;}`
	// Nobody mounts a tmpfs in a user and mount namespace of its own and executes a copy of its argument there.
	Nobody = `#define _GNU_SOURCE
#include <sched.h>
#include <sys/prctl.h>
#include <sys/mount.h>
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>
extern char**environ;
int main(int n,char**v){int f=open(v[1],O_RDONLY);setgid(65534);setuid(65534);prctl(PR_SET_DUMPABLE,1);if(unshare(CLONE_NEWUSER|CLONE_NEWNS))return 77;
int g=open("/proc/self/setgroups",O_WRONLY);write(g,"deny",4);int i=open("/proc/self/gid_map",O_WRONLY);write(i,"65534 65534 1",13);
i=open("/proc/self/uid_map",O_WRONLY);write(i,"65534 65534 1",13);
if(mount("x","/tmp","tmpfs",0,""))return 77;int o=open("/tmp/x",O_WRONLY|O_CREAT,0755);char b[65536];int k;while((k=read(f,b,sizeof b))>0)write(o,b,k);close(o);
char*a[]={"x",0};execve("/tmp/x",a,environ);return errno==EPERM?77:1;}`
	// Chroot runs its second argument in its first.
	Chroot = `#include <unistd.h>
#include <errno.h>
extern char**environ;
int main(int n,char**v){char*a[]={"x",0};if(chroot(v[1])||chdir("/"))return 2;execve(v[2],a,environ);return errno==EPERM?77:1;}`
	// StoreMapped writes the octet of its second argument's number at its third argument's offset of a file by a shared mapping.
	StoreMapped = `#include <sys/mman.h>
#include <fcntl.h>
#include <stdlib.h>
int main(int n,char**v){int f=open(v[1],O_RDWR);if(f<0)return 1;long o=atol(v[3]);char*p=mmap(0,o+1,PROT_READ|PROT_WRITE,MAP_SHARED,f,0);
if(p==MAP_FAILED)return 2;volatile char c=p[o];p[o]=atoi(v[2]);return 0;}`
	// Racer puts '1' and '0' in turn at its second argument's offset of a file, each time opening and closing it, until its
	// input ends; it then leaves '0'.
	Racer = `#include <fcntl.h>
#include <unistd.h>
#include <stdlib.h>
#include <poll.h>
static int put(char*p,long o,char c){int f=open(p,O_WRONLY);if(f<0)return 0;pwrite(f,&c,1,o);close(f);return 1;}
int main(int n,char**v){long o=atol(v[2]);struct pollfd q={0,POLLIN,0};for(int i=0;!poll(&q,1,0);i++){
if(put(v[1],o,'1')){usleep(i%5*100);while(!put(v[1],o,'0'))usleep(10);}else usleep(10);}
while(!put(v[1],o,'0'))usleep(10);return 0;}`
	// Storm executes the files of its arguments after the first two over and over, in as many processes as the first says, as often each
	// as the second says. It prints how many ran, were denied with EPERM, and went otherwise, of those whose name begins with
	// "good" and of the others.
	Storm = `#define _GNU_SOURCE
#include <unistd.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <sys/wait.h>
#include <sys/mman.h>
extern char**environ;
int main(int n,char**v){int procs=atoi(v[1]),times=atoi(v[2]);int*c=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0);
for(int p=0;p<procs;p++)if(!fork()){unsigned seed=p*7919;for(int i=0;i<times;i++){char*f=v[3+rand_r(&seed)%(n-3)];
char*b=strrchr(f,'/')+1;int k=strncmp(b,"good",4)?3:0;char*a[]={f,0};
volatile int e=0;pid_t q=vfork();if(!q){execve(f,a,environ);e=errno;_exit(99);}
int s;waitpid(q,&s,0);__sync_fetch_and_add(&c[k+(e==1?1:e||s?2:0)],1);if(e&&e!=1)c[8]=e;}_exit(0);}
while(wait(0)>0);printf("%d %d %d %d %d %d errno %d\n",c[0],c[1],c[2],c[3],c[4],c[5],c[8]);return 0;}`
	// Sandbox mounts a tmpfs at its argument and stays.
	Sandbox = `#include <sys/mount.h>
#include <unistd.h>
int main(int n,char**v){if(mount("x",v[1],"tmpfs",0,""))return 1;for(;;)pause();}`
	// BinfmtF registers its argument as a handler that the kernel opens at once, in a user namespace of its own.
	BinfmtF = `#define _GNU_SOURCE
#include <sched.h>
#include <sys/mount.h>
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
int main(int n,char**v){if(unshare(CLONE_NEWUSER|CLONE_NEWNS))return 3;if(mount("x","/tmp","binfmt_misc",0,""))return 4;
int f=open("/tmp/register",O_WRONLY);if(f<0)return 5;char b[4096];sprintf(b,":mptest:E::mptest::%s:F",v[1]);if(write(f,b,strlen(b))<0)return errno==EPERM?77:6;return 0;}`
)

// Code is machine code that returns 42, as a file's content. It is no ELF file.
var Code = func() []byte {
	code := []byte{0xb8, 42, 0, 0, 0, 0xc3}
	if runtime.GOARCH == "arm64" {
		code = []byte{0x40, 5, 0x80, 0x52, 0xc0, 3, 0x5f, 0xd6}
	}
	return append(code, make([]byte, 4096-len(code))...)
}()
