package boot

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"midplane/internal/lab"
)

// patience bounds one command in the guest, whose processor is emulated.
const patience = 4 * time.Minute

// guest is the booted tree.
type guest struct {
	t     *testing.T
	vm    *lab.VM
	table []string
}

// row notes one step of the table, and complains when it did not go as it should.
func (g *guest) row(step, want, got string) {
	g.t.Helper()
	mark := "ok  "
	if want != got {
		mark = "BAD "
		log, _ := g.try("journalctl -b -o short-precise --no-pager -n 80 -u midplane-digsig -u midplane-digsig-guardian -u init.scope 2>&1")
		g.t.Errorf("%s: %s: want %s\n%s", step, got, want, log)
	}
	line := fmt.Sprintf("%s%-46s %-22s %s", mark, step, want, got)
	g.table = append(g.table, line)
	g.t.Log(line)
}

// try runs a command in the guest and returns all that it said.
func (g *guest) try(command string) (string, int) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	r, err := g.vm.Run(ctx, command)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s%s", command, err, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout + r.Stderr), r.Code
}

// does wants a command to succeed and to say something.
func (g *guest) does(step, command, words string) {
	g.t.Helper()
	out, code := g.try(command)
	got := "done"
	if code != 0 || !strings.Contains(out, words) {
		got = fmt.Sprintf("code %d: %.300q", code, out)
	}
	g.row(step, "done", got)
}

// until waits for a command to succeed.
func (g *guest) until(step, command string) {
	g.t.Helper()
	got := "never"
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && got != "done"; {
		if _, code := g.try(command + " || { sleep 1; false; }"); code == 0 {
			got = "done"
		}
	}
	g.row(step, "done", got)
}

// TestIntegrationDebianBoots boots a Debian of which everything is signed with enforcement from before sysinit.target on.
func TestIntegrationDebianBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: boots a whole system, twice")
	}
	r := newTree(t)
	if bad := r.unsigned(); len(bad) > 0 {
		t.Fatalf("%d files of the tree are not signed: %q", len(bad), bad)
	}
	image := lab.Ext4Image(t, lab.Ext4{Size: 1200, From: r.root})
	began := time.Now()
	g := &guest{t: t, vm: lab.NewVM(t, lab.VMConfig{Name: "signed", Memory: 1024, CPUs: 2, Root: true, Disks: []string{image},
		Append: "systemd.show_status=0"})}
	defer func() { t.Logf("step, wanted, got:\n%s", strings.Join(g.table, "\n")) }()
	t.Logf("a shell after %v", time.Since(began).Round(time.Second))
	g.row("boots to a shell", "done", "done")
	g.until("multi-user", "systemctl is-active -q multi-user.target")
	t.Logf("all of it after %v", time.Since(began).Round(time.Second))
	g.enforced("from early boot")
	g.denies()
	g.works()
	g.killed()
	g.supervised()
	g.upgraded()
	g.rebooted()
}

// enforced wants the enforcer to have begun before the rest of the system.
func (g *guest) enforced(when string) {
	g.t.Helper()
	g.does("enforcing "+when, "midplane digsig status", "enforce")
	g.does("enforcer before sysinit.target", `
a=$(systemctl show -P ActiveEnterTimestampMonotonic midplane-digsig.service) b=$(systemctl show -P ActiveEnterTimestampMonotonic sysinit.target)
echo "enforcer $a sysinit $b"; [ "$a" -gt 0 ] && [ "$a" -le "$b" ]`, "enforcer")
	g.does("unsigned program is denied", "! /opt/planted/static", "not permitted")
}

// denies tries everything that was planted, and reads in the log that it was denied.
func (g *guest) denies() {
	g.t.Helper()
	for _, p := range denied {
		out, _ := g.try(p.command)
		got := "denied"
		if strings.Contains(out, "PLANTED") {
			got = "RAN"
		} else if log, _ := g.try("midplane digsig audit tail -n 400 | grep -F 'verdict=deny' | grep -F " + quote("path="+p.path+" ") + " | tail -1"); log == "" {
			got = fmt.Sprintf("no record; it said %.200q", out)
		}
		g.row(p.what, "denied", got)
	}
	g.does("audit log is whole", "sync; midplane digsig audit verify", "whole")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// works is a day in the life of the system.
func (g *guest) works() {
	g.t.Helper()
	g.until("sshd answers", "systemctl is-active -q ssh")
	g.does("ssh to localhost with a key", "ssh -i /root/id -o StrictHostKeyChecking=no -o ConnectTimeout=120 root@127.0.0.1 echo over ssh", "over ssh")
	g.does("apt takes the archive", "apt-get -qq update", "")
	g.does("apt installs a signed package", "DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends install hello", "manifests put in place")
	g.does("what was installed runs", "hello", "Hello")
	g.until("cron runs its job", "[ -e /run/cron-ran ]")
	g.does("nothing failed", "systemctl --failed --no-legend; ! systemctl --failed --no-legend | grep .", "")
}

// worker prints the number of the enforcer's worker.
const worker = `midplane digsig status -j | grep -o '"worker": *[0-9]*' | grep -o '[0-9]*$'`

// killed kills the worker again and again while programs are started, signed ones and others.
func (g *guest) killed() {
	g.t.Helper()
	out, code := g.try(`
( for i in $(seq 40); do /opt/planted/static 2>/dev/null && echo RAN; done; echo tried ) > /root/bad 2>&1 &
( for i in $(seq 40); do /usr/bin/true || echo FAILED; done; echo ran ) > /root/good 2>&1 &
for i in 1 2 3; do sleep 1; kill -KILL $(` + worker + `); done
wait %1 %2
cat /root/bad; sort /root/good | uniq -c | tr -s ' \n' ' '`)
	got := "nothing unsigned ran"
	if code != 0 || strings.Contains(out, "RAN") || !strings.Contains(out, "tried") {
		got = fmt.Sprintf("code %d: %q", code, out)
	}
	g.row("worker killed three times", "nothing unsigned ran", got)
	g.does("executions go on", "/usr/bin/true && bash -c 'echo alive'", "alive")
	g.does("three workers were replaced", "midplane digsig status -j | grep -o 'killed by killed' | wc -l", "3")
}

// supervised kills the supervisor at any moment, then both, then the guardian, and restarts the unit, while an unsigned program
// is executed again and again. Then it stops the unit, and begins anew.
func (g *guest) supervised() {
	g.t.Helper()
	const active = "until systemctl is-active -q midplane-digsig && midplane digsig status >/dev/null; do sleep 0.1; done; "
	const main = "$(systemctl show -P MainPID midplane-digsig)"
	g.attack()
	g.does("supervisor killed ten times, at any moment", `
for i in $(seq 10); do p=`+main+`; [ "$p" -gt 0 ] && kill -KILL $p; sleep 0.$((RANDOM % 10)); done; `+active+`/usr/bin/true && echo alive`, "alive")
	g.does("supervisor killed after all marks were taken back", `
midplane digsig enforce --reload; kill -KILL `+main+`; `+active+`bash -c 'echo alive'`, "alive")
	g.does("supervisor and worker killed at once", "systemctl kill -s KILL midplane-digsig; "+active+"bash -c 'echo alive'", "alive")
	g.does("both killed, by themselves", "kill -KILL "+main+" $("+worker+"); "+active+"bash -c 'echo alive'", "alive")
	g.does("guardian and supervisor killed at once", "systemctl kill -s KILL midplane-digsig-guardian; kill -KILL "+main+"; "+active+`
until systemctl is-active -q midplane-digsig-guardian; do sleep 0.1; done; bash -c 'echo alive'`, "alive")
	g.does("restarted five times", "for i in 1 2 3 4 5; do systemctl restart midplane-digsig; done; "+active+"bash -c 'echo alive'", "alive")
	g.attacked()
	g.does("stopped: everything runs", "systemctl stop midplane-digsig; until /opt/planted/static; do sleep 0.1; done; echo ran", "ran")
	g.does("started again: it does not", "systemctl start midplane-digsig && ! /opt/planted/static && /usr/bin/true && echo alive", "alive")
}

// attack executes an unsigned program again and again, until attacked.
func (g *guest) attack() {
	g.t.Helper()
	g.does("an unsigned program is tried for ever", `
rm -f /root/enough; ( while [ ! -e /root/enough ]; do /opt/planted/static 2>/dev/null && echo RAN; done; echo tried ) > /root/bad 2>&1 & echo begun`, "begun")
}

func (g *guest) attacked() {
	g.t.Helper()
	g.does("nothing unsigned ran", `
touch /root/enough; until grep -q tried /root/bad; do sleep 0.1; done; ! grep RAN /root/bad`, "")
}

// upgraded replaces the enforcer's program by a newer signed one.
func (g *guest) upgraded() {
	g.t.Helper()
	g.attack()
	g.does("a new version is put in place", "mv /root/midplane.new /usr/bin/midplane", "")
	g.does("the service starts anew", "systemctl restart midplane-digsig-guardian midplane-digsig && systemctl is-active midplane-digsig", "active")
	g.attacked()
	g.does("the worker too", "[ /proc/$("+worker+")/exe -ef /usr/bin/midplane ] && echo new", "new")
	g.does("the new version enforces", `p=$(systemctl show -P MainPID midplane-digsig) && [ /proc/$p/exe -ef /usr/bin/midplane ] && midplane digsig verify -v /usr/bin/midplane && ! /opt/planted/static`, "not permitted")
	g.does("signed programs run", "/usr/bin/true && hello", "Hello")
}

// rebooted ends the system and boots it again.
func (g *guest) rebooted() {
	g.t.Helper()
	g.does("the log was never broken", "midplane digsig audit verify", "whole")
	g.try("systemctl reboot") // the guest's end is qemu's
	if !g.vm.Ended(patience) {
		g.row("reboot", "done", "it does not go down")
		g.vm.Kill()
	}
	g.vm.Boot()
	g.row("boots again to a shell", "done", "done")
	g.until("multi-user again", "systemctl is-active -q multi-user.target")
	g.enforced("after a reboot")
	g.does("what was installed still runs", "hello", "Hello")
	g.does("the log goes on", "midplane digsig audit verify", "whole")
}
