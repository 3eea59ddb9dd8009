// Package bpflsm decides in the kernel which files become code: BPF programs on the hooks of the Linux security modules
// look the file's digest up in a map of those that are allowed. It is tier B of enforcement, and needs Linux 6.8 or later
// with BPF LSM active ([Probe]).
//
// What vouches for a file is one of two: fs-verity, whose digest the kernel itself keeps and checks on every page that it
// reads; or, where a file system has no fs-verity, a verdict that user space gave about the inode ([Gate.Begin],
// [Gate.Commit]) and that ends when somebody opens the file for writing or cuts it. Everything else is denied: memfds,
// file systems of other mount namespaces, files that nobody has read yet.
//
//	hook                    when                                              a file needs one of the roles
//	bprm_creds_for_exec     AT_EXECVE_CHECK (Linux 6.14)                      exec, script
//	bprm_check_security     execve: the file asked for                        exec; a #! script: script
//	                        the program of its #! line, or of binfmt_misc     interp, exec
//	mmap_file               PROT_EXEC as it will be, READ_IMPLIES_EXEC too    exec, lib, interp (so PT_INTERP, dlopen, LD_PRELOAD)
//	file_mprotect           a mapping becomes executable                      exec, lib, interp
//	kernel_read_file        a module, a kernel to boot (Policy.Modules)       module
//	kernel_load_data        the same from memory                              never
//	bpf_map                 a descriptor of one of the maps (Policy.Guard)    the process: manager
//	inode_unlink, _rename,
//	sb_umount               the pins (Policy.Guard)                           the process: manager
//	ptrace_access_check,    another process's memory (Policy.Ptrace; of a
//	ptrace_traceme          manager: Policy.Guard)                            never; the process: manager
//
// A file on an overlay is not known here: the inode that the content is in is the layer's. So what runs from an overlay that
// user space names ([Gate.SetOverlays]), and that was mounted in the first user namespace, is left to fanotify, which sees the
// layer's inode; modules are not. What runs from any other overlay is denied.
//
// Memory that belongs to no file, and private copies of a file's pages that were or can be written, are allowed or denied
// as one by Policy.Anonymous: code that a signed program makes up itself is not seen otherwise.
//
// Maps and links are pinned in a bpffs, so that nothing changes when the process that made them ends, however it does.
// The programs come first and do nothing until [Gate.SetPolicy]. [Attach] on a running gate replaces the programs: the new
// ones are attached before the old ones go, both on the same maps. Revoking is taking a digest out of the map, and holds
// from the next look-up on; [Gate.Replace] exchanges all of them in one step, by generation.
//
// A manager is a process that runs a program whose grant says so. A link cannot be detached by bpf(2), it ends with its
// pin; so with Policy.Guard no other process, root's neither, ends the enforcement without writing to the kernel's memory,
// which is for lockdown to forbid.
//
// Sources: Linux security/security.c, include/linux/lsm_hook_defs.h, kernel/bpf/bpf_lsm.c, fs/verity/measure.c.
package bpflsm

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target bpfel -type settings -type digest -type grant -type verdict -type task -type event lsm bpf/lsm.c -- -O2 -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
