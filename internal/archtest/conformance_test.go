package archtest

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var testName = regexp.MustCompile(`\b([a-z][a-z0-9]*)\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)(?:/([A-Za-z0-9_]+))?`)

// What docs/conformance.md says is done has a test, and every test that it names exists.
func TestConformance(t *testing.T) {
	tests := map[string]bool{}   // package.Test
	quoted := map[string]bool{}  // package."string", for subtests
	targets := map[string]bool{} // fuzz targets
	for _, s := range readModule(t) {
		if !s.test {
			continue
		}
		pkg := path.Base(s.pkg)
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[pkg+"."+f.Name.Name] = true
				if strings.HasPrefix(f.Name.Name, "Fuzz") {
					targets[pkg+"."+f.Name.Name] = true
				}
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok {
				if v, err := strconv.Unquote(l.Value); err == nil {
					quoted[pkg+"."+v] = true
				}
			}
			return true
		})
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := func(text string) (n int) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			n++
			if !tests[m[1]+"."+m[2]] {
				t.Errorf("no test %s.%s", m[1], m[2])
			}
			if m[3] != "" && !quoted[m[1]+"."+m[3]] {
				t.Errorf("no subtest %s", m[0])
			}
			delete(targets, m[1]+"."+m[2])
		}
		return n
	}
	want := map[string]int{"TIPC": 70, "FIB": 36, "DigSig": 52, "AEM": 55} // rows of each feature table
	rows := map[string]int{}
	section := ""
	for _, line := range strings.Split(string(b), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		n := named(line)
		cells := strings.Split(line, "|")
		if want[section] == 0 || len(cells) < 5 {
			continue
		}
		no, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue
		}
		rows[section]++
		if no != rows[section] {
			t.Errorf("%s: row %d is number %d", section, rows[section], no)
		}
		switch state, text := strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4]); state {
		case "done":
			if n == 0 {
				t.Errorf("row %d is done, and no test shows it", no)
			}
		case "partial":
			if text == "" {
				t.Errorf("row %d does not say what is missing", no)
			}
		case "not yet":
		default:
			t.Errorf("row %d has state %q", no, state)
		}
	}
	for section, n := range want {
		if rows[section] != n {
			t.Errorf("%s: %d rows, want %d", section, rows[section], n)
		}
	}
	for f := range targets {
		t.Errorf("fuzz target %s is not on the list", f)
	}
}
