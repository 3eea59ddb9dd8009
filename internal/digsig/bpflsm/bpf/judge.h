/* From a file to a reason, and from a reason to what a hook returns. */
#ifndef JUDGE_H
#define JUDGE_H

#include "state.h"

/* What a hook is about. */
struct question {
	__u32 hook;
	__u32 need; /* one of these roles */
	__u32 roles;
	__u32 kind;
	__u8 sum[32];
};

static __always_inline struct settings *current_policy(void)
{
	__u32 zero = 0;
	struct settings *p = bpf_map_lookup_elem(&policy, &zero);
	return p && p->mode != MODE_OFF ? p : 0;
}

/* Returns what is known about a file's inode. Only programs that may sleep can measure; of a file that has fs-verity the
 * digest never changes, so it is measured once. */
static __always_inline struct verdict *known(struct file *file, struct inode *inode)
{
	struct bpf_dynptr digest;
	int verity = inode->i_flags & S_VERITY;
	struct verdict *v = bpf_inode_storage_get(&verdicts, inode, 0, verity ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	if (!v || !verity || v->kind == KIND_VERITY)
		return v;
	if (bpf_dynptr_from_mem(&v->fsverity, sizeof(v->fsverity), 0, &digest) == 0 && bpf_get_fsverity_digest(file, &digest) == 0)
		__sync_lock_test_and_set(&v->kind, KIND_VERITY); /* after the digest, for every processor */
	return v;
}

static __always_inline enum reason judge(struct settings *p, struct verdict *v, struct inode *inode, struct question *q)
{
	struct digest key = {};
	struct grant *g;
	__u64 magic;

	if (!v)
		return NO_VERDICT;
	q->kind = v->kind;
	switch (v->kind) {
	case KIND_VERITY:
		if (v->fsverity.algorithm != FS_VERITY_HASH_ALG_SHA256)
			return ALGORITHM;
		__builtin_memcpy(key.sum, v->fsverity.digest, sizeof(key.sum));
		break;
	case KIND_CONTENT:
		/* A running program has a negative count. */
		if (inode->i_writecount.counter > 0)
			return WRITERS;
		magic = inode->i_sb->s_magic;
		if (!bpf_map_lookup_elem(&local, &magic))
			return REMOTE;
		__builtin_memcpy(key.sum, v->content, sizeof(key.sum));
		break;
	case KIND_PENDING:
		return UNDECIDED;
	default:
		return NO_VERDICT;
	}
	key.kind = q->kind;
	__builtin_memcpy(q->sum, key.sum, sizeof(q->sum));
	if (q->kind == KIND_CONTENT && v->generation < p->content_floor)
		return STALE;
	g = bpf_map_lookup_elem(&allowed, &key);
	if (!g)
		return UNKNOWN;
	q->roles = g->roles;
	if (g->generation < p->floor)
		return STALE;
	return g->roles & q->need ? OK : ROLE;
}

static __always_inline void count(__u32 hook, __u32 reason)
{
	__u32 key = hook * REASONS + reason;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Begins the report of a denial. Where the ring is full, the loss is counted; the verdict does not depend on it. */
static __always_inline struct event *report(struct settings *p, struct inode *inode, struct question *q, enum reason reason)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__u32 zero = 0;
		__u64 *n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			__sync_fetch_and_add(n, 1);
		return 0;
	}
	e->time = bpf_ktime_get_ns();
	e->cgroup = bpf_get_current_cgroup_id();
	e->inode = inode ? inode->i_ino : 0;
	e->device = inode ? BPF_CORE_READ(inode, i_sb, s_dev) : 0;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->parent = BPF_CORE_READ(task, real_parent, tgid);
	e->uid = bpf_get_current_uid_gid();
	e->roles = q->roles;
	e->need = q->need;
	e->hook = q->hook;
	e->reason = reason;
	e->mode = p->mode;
	e->kind = q->kind;
	__builtin_memcpy(e->sum, q->sum, sizeof(e->sum));
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->path[0] = 0;
	return e;
}

static __always_inline int outcome(struct settings *p)
{
	return p->mode == MODE_ENFORCE ? -EPERM : 0;
}

/* Answers for a hook that has no path to tell. */
static __always_inline int answer(struct settings *p, struct inode *inode, struct question *q, enum reason reason)
{
	struct event *e;

	count(q->hook, reason);
	if (reason == OK)
		return 0;
	e = report(p, inode, q, reason);
	if (e)
		bpf_ringbuf_submit(e, 0);
	return outcome(p);
}

/* Says whether what runs from a file's overlay is decided by fanotify, which sees the layer's inode; the kernel asks about the
 * overlay's here, of which nothing is known. An overlay that was mounted in a user namespace is nobody's word: its number may
 * have been another's a moment ago. */
static __always_inline int left(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;
	__u32 dev = sb->s_dev;

	return sb->s_magic == OVERLAYFS_SUPER_MAGIC && sb->s_user_ns->level == 0 && bpf_map_lookup_elem(&overlays, &dev);
}

/* Judges a file for a hook that may sleep. */
static __always_inline int decide(struct settings *p, struct file *file, struct question *q)
{
	struct inode *inode = file->f_inode;
	enum reason reason = judge(p, known(file, inode), inode, q);
	struct event *e;

	if (reason == NO_VERDICT && q->hook < HOOK_MODULE && left(inode))
		reason = LEFT;
	count(q->hook, reason);
	if (reason == OK || reason == LEFT)
		return 0;
	e = report(p, inode, q, reason);
	if (e) {
		if (bpf_d_path(&file->f_path, e->path, sizeof(e->path)) < 0)
			e->path[0] = 0;
		bpf_ringbuf_submit(e, 0);
	}
	return outcome(p);
}

/* Says whether the current process may change what is guarded. Only for programs that do not sleep. */
static __always_inline int manager(void)
{
	struct task_struct *leader = bpf_get_current_task_btf()->group_leader;
	struct task *t = leader ? bpf_task_storage_get(&tasks, leader, 0, 0) : 0;
	return t && t->manager;
}

#endif
