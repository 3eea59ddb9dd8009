package boot

import (
	"bytes"
	"strings"

	"midplane/internal/digsig/elfsig/elftest"
)

const (
	program = "#include <stdio.h>\nint main(void) { puts(\"PLANTED\"); return 0; }\n"
	library = "#include <stdio.h>\n__attribute__((constructor)) static void ran(void) { puts(\"PLANTED\"); fflush(stdout); }\n"
	loader  = "#include <dlfcn.h>\n#include <stdio.h>\nint main(int n, char **v) { if (dlopen(v[1], RTLD_NOW)) return 0; puts(dlerror()); return 1; }\n"
)

// planted is something that must not run.
type planted struct {
	what    string
	command string // run by bash in the guest; what it prints when it runs is PLANTED
	path    string // what the audit log names
}

// plants are put into /opt/planted of the tree, those that tests make in the running guest excepted.
func (r *tree) plant() {
	r.t.Helper()
	const dir = "opt/planted/"
	static := elftest.Build(elftest.Spec{}).Bytes
	r.write(dir+"static", string(static), 0o755)
	r.compile(dir+"dynamic", program)
	r.compile(dir+"lib.so", library, "-shared", "-fPIC")
	r.compile(dir+"plugin.so", library+"int plugin;\n", "-shared", "-fPIC")
	r.compile("usr/local/bin/load", loader, "-ldl")
	r.sign("usr/local/bin/load")
	r.compile(dir+"signed", program)
	r.copy(r.path(dir+"signed"), dir+"expired")
	r.copy(r.path(dir+"signed"), dir+"unknown")
	r.sign(dir + "signed")
	signed := r.read(dir + "signed")
	r.digsig("sign", "--key", r.key("stranger"), r.path(dir+"unknown"))
	change := func(name, from string, how func(b []byte) []byte) {
		r.write(dir+name, string(how(bytes.Clone(r.read(from)))), 0o755)
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	change("flipped", dir+"signed", flip)
	change("appended", dir+"signed", func(b []byte) []byte { return append(b, 0) })
	change("truncated", dir+"signed", func(b []byte) []byte { return b[:len(b)-1] })
	change("spliced", dir+"dynamic", func(b []byte) []byte { return append(b, signed[len(signed)-1072:]...) })
	change("entry", dir+"signed", func(b []byte) []byte { b[24] ^= 1; return b })
	change("altered", "usr/bin/true", flip)
	change("ls", dir+"dynamic", func(b []byte) []byte { return append(b, 0) })
	r.write(dir+"script", "#!/bin/sh\necho PLANTED\n", 0o755)
	change("altered-script", "usr/bin/ldd", func(b []byte) []byte { return []byte(strings.Replace(string(b), "\n", "\necho PLANTED\n", 1)) })
	r.write(dir+"perl-script", "#!/usr/bin/perl\nprint \"PLANTED\\n\";\n", 0o755)
	r.write(dir+"interpreted", "#!/opt/planted/dynamic\n", 0o755)
	r.compile(dir+"loader", program, "-static")
	r.compile("usr/local/bin/foreign-loader", program, "-Wl,--dynamic-linker=/opt/planted/loader")
	r.sign("usr/local/bin/foreign-loader")
	_ = r.run("rm", r.path(dir+"expired"))
}

// denied are the things that are tried in the guest.
var denied = []planted{
	{"unsigned static program", "/opt/planted/static && echo PLANTED", "/opt/planted/static"},
	{"unsigned dynamic program", "/opt/planted/dynamic", "/opt/planted/dynamic"},
	{"altered program of Debian's", "/opt/planted/altered && echo PLANTED", "/opt/planted/altered"},
	{"signed, then one bit flipped", "/opt/planted/flipped", "/opt/planted/flipped"},
	{"signed, then an octet appended", "/opt/planted/appended", "/opt/planted/appended"},
	{"signed, then an octet cut off", "/opt/planted/truncated", "/opt/planted/truncated"},
	{"signed, then another entry point", "/opt/planted/entry", "/opt/planted/entry"},
	{"with another file's signature", "/opt/planted/spliced", "/opt/planted/spliced"},
	{"signed by a stranger", "/opt/planted/unknown", "/opt/planted/unknown"},
	{"named like a signed program", "PATH=/opt/planted:$PATH ls", "/opt/planted/ls"},
	{"unsigned script", "/opt/planted/script", "/opt/planted/script"},
	{"unsigned script for perl", "/opt/planted/perl-script", "/opt/planted/perl-script"},
	{"altered script of Debian's", "/opt/planted/altered-script --version", "/opt/planted/altered-script"},
	{"unsigned interpreter of a script", "/opt/planted/interpreted", "/opt/planted/interpreted"},
	{"signed program with an unsigned loader", "/usr/local/bin/foreign-loader", "/opt/planted/loader"},
	{"LD_PRELOAD of an unsigned library", "LD_PRELOAD=/opt/planted/lib.so /usr/bin/true", "/opt/planted/lib.so"},
	{"dlopen of an unsigned plugin", "/usr/local/bin/load /opt/planted/plugin.so", "/opt/planted/plugin.so"},
	{"ld.so with an unsigned program", "/lib64/ld-linux-x86-64.so.2 /opt/planted/dynamic", "/opt/planted/dynamic"},
	{"unsigned script on a tmpfs", "printf '#!/bin/sh\\necho PLANTED\\n' > /run/x; chmod 755 /run/x; /run/x", "/run/x"},
	{"signed script, changed after it ran", "cp /usr/bin/ldd /root/ldd && /root/ldd --version >/root/out && echo 'echo PLANTED' > /root/more && cat /root/more /root/ldd | tee /root/ldd >/dev/null; /root/ldd", "/root/ldd"},
	{"by a symbolic link", "ln -sf /opt/planted/dynamic /root/link; /root/link", "/opt/planted/dynamic"},
	{"bind mounted over a signed program", "mount --bind /opt/planted/dynamic /usr/bin/free; /usr/bin/free; umount /usr/bin/free", "/usr/bin/free"},
}
