/* What these programs read of the kernel's structures. Where a field is in the running kernel is found when the programs
 * are loaded (CO-RE), so only names and types matter here. */
#ifndef KERNEL_H
#define KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define EPERM 1
#define PROT_WRITE 0x2
#define PROT_EXEC 0x4
#define VM_WRITE 0x2
#define VM_EXEC 0x4
#define S_VERITY (1 << 16)          /* include/linux/fs.h */
#define FMODE_WRITE 0x2             /* include/linux/fs.h */
#define ATTR_SIZE (1 << 3)          /* include/linux/fs.h */
#define PTRACE_MODE_ATTACH 0x2      /* include/linux/ptrace.h */
#define OVERLAYFS_SUPER_MAGIC 0x794c7630 /* include/uapi/linux/magic.h */
#define FS_VERITY_HASH_ALG_SHA256 1 /* include/uapi/linux/fsverity.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct user_namespace {
	int level;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
	struct user_namespace *s_user_ns;
};

struct inode {
	__u32 i_flags;
	struct super_block *i_sb;
	unsigned long i_ino;
	atomic_t i_writecount;
};

struct dentry {
	struct inode *d_inode;
};

struct vfsmount {
	struct super_block *mnt_sb;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	__u32 f_mode;
	struct path f_path;
	struct inode *f_inode;
};

struct linux_binprm {
	struct file *file;
	const char *filename; /* as it was asked for */
	const char *interp;   /* another pointer once a #! line or binfmt_misc chose the program */
	char buf[256];        /* the beginning of file */
	unsigned int is_check : 1;
};

struct iattr {
	unsigned int ia_valid;
};

struct anon_vma;

struct vm_area_struct {
	unsigned long vm_flags;
	struct anon_vma *anon_vma;
	struct file *vm_file;
};

struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
};

struct bpf_map {
	__u32 id;
};

#pragma clang attribute pop

/* Numbers that are looked up in the running kernel. */
enum kernel_read_file_id {
	READING_MODULE = 2,
	READING_KEXEC_IMAGE = 3,
	READING_KEXEC_INITRAMFS = 4,
};

enum kernel_load_data_id {
	LOADING_MODULE = 2,
	LOADING_KEXEC_IMAGE = 3,
};

/* fs/verity/measure.c, Linux 6.8 */
extern int bpf_get_fsverity_digest(struct file *file, struct bpf_dynptr *digest_p) __ksym;

#endif
