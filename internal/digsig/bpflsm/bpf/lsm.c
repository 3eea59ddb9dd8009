/* The hooks. Each calls what is in judge.h; see the package's comment for what is decided where. */
#include "judge.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* An argument as a number. Of pointers that a hook may get as NULL, some kernels' verifiers believe that they never are, and
 * take out comparisons with NULL (mmap_file's file, in Linux 6.12). */
static __always_inline __u64 argument(void *ctx, __u32 n)
{
	__u64 value = 0;

	bpf_get_func_arg(ctx, n, &value);
	return value;
}

/* AT_EXECVE_CHECK (Linux 6.14) ends after this hook. Every other execution comes by bprm_check_security. */
SEC("lsm.s/bprm_creds_for_exec")
int BPF_PROG(check_exec, struct linux_binprm *bprm)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_CHECK, .need = ROLE_EXEC | ROLE_SCRIPT};

	if (!p || !bpf_core_field_exists(bprm->is_check) || !BPF_CORE_READ_BITFIELD(bprm, is_check))
		return 0;
	return decide(p, bprm->file, &q);
}

/* Once for the file that was asked for, and once for each program that a #! line or binfmt_misc puts in its place. */
SEC("lsm.s/bprm_check_security")
int BPF_PROG(exec, struct linux_binprm *bprm)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_EXEC, .need = ROLE_EXEC};

	if (!p)
		return 0;
	if (bprm->interp != bprm->filename) {
		q.hook = HOOK_INTERP;
		q.need = ROLE_EXEC | ROLE_INTERP;
	} else if (bprm->buf[0] == '#' && bprm->buf[1] == '!') {
		q.need = ROLE_SCRIPT;
	}
	return decide(p, bprm->file, &q);
}

/* A process is a manager while it runs a program with that role; its children are not before they execute one. */
SEC("lsm.s/bprm_committed_creds")
int BPF_PROG(committed, struct linux_binprm *bprm)
{
	struct settings *p = current_policy();
	struct question q = {.need = ROLE_MANAGER};
	struct file *file = bprm->file;
	struct inode *inode = file->f_inode;
	int is = p && judge(p, known(file, inode), inode, &q) == OK;
	struct task *t = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, is ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);

	if (t)
		t->manager = is;
	return 0;
}

/* prot is what the mapping gets, READ_IMPLIES_EXEC included (security/security.c: mmap_prot). */
SEC("lsm.s/mmap_file")
int BPF_PROG(map_file, struct file *file, unsigned long reqprot, unsigned long prot)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_MMAP, .need = ROLE_EXEC | ROLE_LIB | ROLE_INTERP};
	int is_file = argument(ctx, 0) != 0;

	if (!p)
		return 0;
	if (!(prot & PROT_EXEC)) {
		/* mprotect cannot measure: have it done. */
		if (is_file && file->f_inode->i_flags & S_VERITY)
			known(file, file->f_inode);
		return 0;
	}
	if (!is_file || prot & PROT_WRITE) {
		if (p->flags & DENY_ANONYMOUS)
			return answer(p, 0, &q, ANONYMOUS);
		if (!is_file)
			return answer(p, 0, &q, OK);
	}
	return decide(p, file, &q);
}

SEC("lsm/file_mprotect")
int BPF_PROG(protect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_MPROTECT, .need = ROLE_EXEC | ROLE_LIB | ROLE_INTERP};
	struct file *file = vma->vm_file;
	int is_file = BPF_CORE_READ(vma, vm_file) != 0;
	struct inode *inode;

	if (!p || !(prot & PROT_EXEC))
		return 0;
	/* Memory that is no file's, or a private copy of a file's that was or can be written. */
	if (!is_file || prot & PROT_WRITE || (vma->anon_vma && !(vma->vm_flags & VM_EXEC))) {
		if (p->flags & DENY_ANONYMOUS)
			return answer(p, 0, &q, ANONYMOUS);
		if (!is_file)
			return answer(p, 0, &q, OK);
	}
	if (vma->vm_flags & VM_EXEC)
		return 0;
	inode = file->f_inode;
	return answer(p, inode, &q, judge(p, bpf_inode_storage_get(&verdicts, inode, 0, 0), inode, &q));
}

SEC("lsm.s/kernel_read_file")
int BPF_PROG(read_file, struct file *file, enum kernel_read_file_id id)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_MODULE, .need = ROLE_MODULE};

	if (!p || !(p->flags & CHECK_MODULES))
		return 0;
	if (id != bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE)) {
		if (id != bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_IMAGE) &&
		    id != bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_INITRAMFS))
			return 0;
		q.hook = HOOK_KEXEC;
	}
	if (!argument(ctx, 0))
		return answer(p, 0, &q, NO_FILE);
	return decide(p, file, &q);
}

SEC("lsm/kernel_load_data")
int BPF_PROG(load_data, enum kernel_load_data_id id)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_MODULE, .need = ROLE_MODULE};

	if (!p || !(p->flags & CHECK_MODULES))
		return 0;
	if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_IMAGE))
		q.hook = HOOK_KEXEC;
	else if (id != bpf_core_enum_value(enum kernel_load_data_id, LOADING_MODULE))
		return 0;
	return answer(p, 0, &q, NO_FILE);
}

/* A verdict of user space ends when somebody gets the file to write to it, or cuts it. */
SEC("lsm/file_open")
int BPF_PROG(opened, struct file *file)
{
	if (file->f_mode & FMODE_WRITE)
		bpf_inode_storage_delete(&verdicts, file->f_inode);
	return 0;
}

SEC("lsm/inode_setattr")
int BPF_PROG(cut, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = dentry->d_inode;

	if (inode && attr->ia_valid & ATTR_SIZE)
		bpf_inode_storage_delete(&verdicts, inode);
	return 0;
}

static __always_inline int guard(__u32 hook, struct inode *inode)
{
	struct settings *p = current_policy();
	struct question q = {.hook = hook};

	if (!p || !(p->flags & GUARD_STATE) || manager())
		return 0;
	return answer(p, inode, &q, GUARDED);
}

/* Whoever has a descriptor of a map can write it, if by a program of their own. */
SEC("lsm/bpf_map")
int BPF_PROG(use_map, struct bpf_map *map)
{
	__u32 id = map->id;

	return bpf_map_lookup_elem(&guarded, &id) ? guard(HOOK_MAP, 0) : 0;
}

static __always_inline int pinned(struct inode *dir)
{
	__u32 zero = 0;
	struct settings *p = bpf_map_lookup_elem(&policy, &zero);
	__u64 ino = dir->i_ino;

	return p && dir->i_sb->s_dev == p->pins_dev && bpf_map_lookup_elem(&pins, &ino);
}

/* A link lives as long as its pin: nobody can detach it otherwise. */
SEC("lsm/inode_unlink")
int BPF_PROG(unlink, struct inode *dir, struct dentry *dentry)
{
	return pinned(dir) ? guard(HOOK_PIN, dir) : 0;
}

SEC("lsm/inode_rename")
int BPF_PROG(rename, struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir)
{
	return pinned(old_dir) || pinned(new_dir) ? guard(HOOK_PIN, old_dir) : 0;
}

SEC("lsm/sb_umount")
int BPF_PROG(umount, struct vfsmount *mnt)
{
	__u32 zero = 0;
	struct settings *p = bpf_map_lookup_elem(&policy, &zero);

	return p && p->pins_dev && mnt->mnt_sb->s_dev == p->pins_dev ? guard(HOOK_PIN, 0) : 0;
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(attach, struct task_struct *child, unsigned int mode)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_PTRACE};
	struct task_struct *leader;
	struct task *t;

	if (!p || !(mode & PTRACE_MODE_ATTACH))
		return 0;
	if (p->flags & DENY_PTRACE)
		return answer(p, 0, &q, GUARDED);
	leader = child->group_leader;
	t = leader ? bpf_task_storage_get(&tasks, leader, 0, 0) : 0;
	return t && t->manager ? guard(HOOK_PTRACE, 0) : 0;
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(traceme, struct task_struct *parent)
{
	struct settings *p = current_policy();
	struct question q = {.hook = HOOK_PTRACE};

	return p && p->flags & DENY_PTRACE ? answer(p, 0, &q, GUARDED) : 0;
}
