/* The maps, and what is in them. User space fills policy, allowed, pins and guarded; see the package's comment. */
#ifndef STATE_H
#define STATE_H

#include "kernel.h"

enum mode {
	MODE_OFF = 0, /* as if the programs were not there */
	MODE_PERMISSIVE = 1,
	MODE_ENFORCE = 2,
};

enum policy_flag {
	DENY_ANONYMOUS = 1 << 0, /* memory that is no file's does not become executable */
	CHECK_MODULES = 1 << 1,  /* modules, and kernels to boot, need the role */
	GUARD_STATE = 1 << 2,    /* maps and pins are the managers' only */
	DENY_PTRACE = 1 << 3,    /* no process attaches to another */
};

struct settings {
	__u32 mode;
	__u32 flags;
	__u64 floor;         /* grants of a lower generation count no more */
	__u64 content_floor; /* nor do verdicts of user space */
	__u32 pins_dev;      /* s_dev of the bpffs with the pins */
	__u32 unused;
};

/* As internal/digsig/envelope has them; a test compares. */
enum role {
	ROLE_EXEC = 1 << 0,
	ROLE_LIB = 1 << 1,
	ROLE_SCRIPT = 1 << 2,
	ROLE_INTERP = 1 << 3,
	ROLE_DATA = 1 << 4,
	ROLE_MODULE = 1 << 5,
	ROLE_MANAGER = 1 << 30, /* may change the state that is guarded; never signed, given locally */
};

/* What vouches for a file's content. */
enum kind {
	KIND_NONE = 0,
	KIND_VERITY = 1,  /* fs-verity: the kernel itself checks every page */
	KIND_CONTENT = 2, /* user space read it, and nobody has had it open for writing since */
	KIND_PENDING = 3, /* user space is reading it */
};

enum reason {
	OK = 0,
	NO_VERDICT = 1, /* neither fs-verity nor a verdict of user space */
	UNDECIDED = 2,  /* user space is at it */
	UNKNOWN = 3,    /* the digest is not allowed */
	STALE = 4,      /* it was, before the generations that count */
	ROLE = 5,       /* allowed, but not for this use */
	ALGORITHM = 6,  /* fs-verity, but not by SHA-256 */
	WRITERS = 7,    /* somebody can write to it */
	ANONYMOUS = 8,  /* memory that is no file's */
	NO_FILE = 9,    /* a module or kernel that comes from memory */
	GUARDED = 10,
	REMOTE = 11, /* others than this kernel can change it */
	LEFT = 12,   /* on an overlay whose layers fanotify watches: it decides */
	REASONS = 16,
};

enum hook {
	HOOK_CHECK = 0, /* AT_EXECVE_CHECK */
	HOOK_EXEC = 1,
	HOOK_INTERP = 2,
	HOOK_MMAP = 3,
	HOOK_MPROTECT = 4,
	HOOK_MODULE = 5,
	HOOK_KEXEC = 6,
	HOOK_MAP = 7,
	HOOK_PIN = 8,
	HOOK_PTRACE = 9,
	HOOKS = 16,
};

/* What is known about an inode. fsverity is struct fsverity_digest. */
struct verdict {
	__u32 kind;
	__u32 unused;
	__u64 generation;
	__u8 content[32]; /* KIND_CONTENT */
	struct {
		__u16 algorithm;
		__u16 size;
		__u8 digest[64];
	} fsverity; /* KIND_VERITY */
};

struct digest {
	__u32 kind;
	__u8 sum[32];
};

struct grant {
	__u64 generation;
	__u32 roles;
	__u32 unused;
};

struct task {
	__u32 manager;
};

#define PATH_MAX_EVENT 256

struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u64 cgroup;
	__u64 inode;
	__u32 device; /* the kernel's own dev_t: major << 20 | minor */
	__u32 pid;    /* of the process (tgid) */
	__u32 parent;
	__u32 uid;
	__u32 roles; /* of the grant */
	__u32 need;
	__u8 hook;
	__u8 reason;
	__u8 mode;
	__u8 kind;
	__u8 sum[32];
	char comm[16];
	char path[PATH_MAX_EVENT];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct digest);
	__type(value, struct grant);
} allowed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct verdict);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task);
} tasks SEC(".maps");

/* The magic numbers of file systems that only this kernel writes to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u32);
} local SEC(".maps");

/* The s_dev of overlays whose layers are all watched by fanotify. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u32);
} overlays SEC(".maps");

/* The identifiers of the maps that are guarded. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} guarded SEC(".maps");

/* The inode numbers of directories with pins. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u32);
} pins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOKS * REASONS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Only so that the type is in the object, for Go. */
const struct event *unused_event __attribute__((unused));

#endif
