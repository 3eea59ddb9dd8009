package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source is one parsed file. Files for every operating system are read, whatever this one is.
type source struct {
	name  string // path from the module's root, with slashes
	pkg   string // directory of it
	test  bool
	lines int
	text  []byte
	ast   *ast.File
	fset  *token.FileSet
}

// imports returns the paths that the file imports, by the name that the file calls them.
func (s *source) imports() map[string]string {
	m := map[string]string{}
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		m[name] = p
	}
	return m
}

func (s *source) at(n ast.Node) string { return s.fset.Position(n.Pos()).String() }

// readModule parses every Go file of this module; other modules inside it (bench, tools) are their own business.
func readModule(t *testing.T) []*source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var all []*source
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, inner := os.Stat(filepath.Join(file, "go.mod"))
			if file != root && (inner == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s := &source{
			name: filepath.ToSlash(rel), test: strings.HasSuffix(file, "_test.go"),
			lines: bytes.Count(text, []byte("\n")), text: text, fset: token.NewFileSet(),
		}
		s.pkg = path.Dir(s.name)
		if s.ast, err = parser.ParseFile(s.fset, s.name, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found under %s: the tests below would prove nothing", len(all), root)
	}
	return all
}

// product returns the files that are not tests.
func product(all []*source) []*source {
	return slices.DeleteFunc(slices.Clone(all), func(s *source) bool { return s.test })
}

func isStd(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".") && first != module
}

// within says whether a package is one of a list, where "x/…" is x and everything below, and "…x" any path that ends so.
func within(pkg string, list []string) bool {
	return slices.ContainsFunc(list, func(l string) bool {
		if below, ok := strings.CutSuffix(l, "/…"); ok {
			return pkg == below || strings.HasPrefix(pkg, below+"/")
		}
		if end, ok := strings.CutPrefix(l, "…"); ok {
			return strings.HasSuffix(pkg, end)
		}
		return pkg == l
	})
}

func TestCoresImportOnlyWhatTheyMay(t *testing.T) {
	below := slices.Clone(types)
	for _, c := range cores {
		for _, w := range c.within {
			if !slices.Contains(below, w) {
				t.Errorf("rules: %s may import %s, which is not listed before it", c.path, w)
			}
		}
		below = append(below, c.path)
	}
	for _, f := range product(readModule(t)) {
		at := slices.IndexFunc(cores, func(c core) bool { return c.path == f.pkg })
		if at < 0 {
			continue
		}
		for _, i := range f.imports() {
			own, isOwn := strings.CutPrefix(i, module+"/")
			switch {
			case isOwn && !slices.Contains(cores[at].within, own):
				t.Errorf("%s imports %s: not below it", f.name, own)
			case !isOwn && !slices.Contains(coreStd, i) && !slices.Contains(exceptions[f.pkg], i):
				t.Errorf("%s imports %s: cores are pure", f.name, i)
			}
		}
	}
}

func TestCoresArePure(t *testing.T) {
	for _, f := range product(readModule(t)) {
		if !slices.ContainsFunc(cores, func(c core) bool { return c.path == f.pkg }) {
			continue
		}
		names := f.imports()
		complain := func(n ast.Node, what string) { t.Errorf("%s: %s in a core", f.at(n), what) }
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				complain(n, "a goroutine")
			case *ast.ChanType:
				complain(n, "a channel")
			case *ast.SelectStmt:
				complain(n, "select")
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok || names[x.Name] == "" {
					break
				}
				used := names[x.Name] + "." + n.Sel.Name
				forbiddenHere := slices.Contains(forbidden, used) || names[x.Name] == "sync"
				if forbiddenHere && !slices.Contains(exceptions[f.pkg], used) {
					complain(n, used)
				}
			}
			return true
		})
	}
}

func TestImportsStayWhereTheyBelong(t *testing.T) {
	who := map[string][]string{} // several lines about the same package add up
	for _, rule := range onlyFor {
		who[rule.what] = append(who[rule.what], rule.who...)
	}
	for _, f := range product(readModule(t)) {
		for _, i := range f.imports() {
			for _, rule := range onlyFor {
				if within(i, []string{rule.what}) && !within(f.pkg, who[rule.what]) {
					t.Errorf("%s imports %s: %s", f.name, i, rule.why)
				}
			}
		}
	}
}

func TestPublicPackagesStayLight(t *testing.T) {
	graph := map[string][]string{} // of this module's packages and what they import
	for _, f := range product(readModule(t)) {
		for _, i := range f.imports() {
			p := module + "/" + f.pkg
			if !slices.Contains(graph[p], i) {
				graph[p] = append(graph[p], i)
			}
		}
	}
	for pkg, allowed := range public {
		from := map[string]string{module + "/" + pkg: ""} // package: who brought it along
		queue := []string{module + "/" + pkg}
		for len(queue) > 0 {
			p := queue[0]
			queue = queue[1:]
			for _, i := range graph[p] {
				if _, known := from[i]; known {
					continue
				}
				from[i] = p
				queue = append(queue, i)
				if slices.Contains(publicNever, i) || (!isStd(i) && !strings.HasPrefix(i, module+"/") && !slices.Contains(allowed, i)) {
					t.Errorf("package %s brings %s along: %s", pkg, i, trail(from, i))
				}
			}
		}
		if len(from) < 5 {
			t.Errorf("package %s imports next to nothing: is it still there?", pkg)
		}
	}
}

func trail(from map[string]string, p string) string {
	words := []string{p}
	for from[p] != "" {
		p = from[p]
		words = append(words, p)
	}
	slices.Reverse(words)
	return strings.Join(words, " → ")
}

func TestFilesAreShort(t *testing.T) {
	for _, f := range readModule(t) {
		if f.lines > maxLines && !ast.IsGenerated(f.ast) {
			t.Errorf("%s has %d lines, more than %d: one file is one thing", f.name, f.lines, maxLines)
		}
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	marks := []string{"TO" + "DO", "FIX" + "ME", "X" + "XX"}
	for _, f := range readModule(t) {
		for _, g := range f.ast.Comments {
			for _, c := range g.List {
				for _, m := range marks {
					if strings.Contains(c.Text, m) {
						t.Errorf("%s: %s", f.at(c), strings.TrimSpace(c.Text))
					}
				}
			}
		}
	}
}

// TestRulesBite feeds the checks above with what they must refuse, so that a rule cannot rot unseen.
func TestRulesBite(t *testing.T) {
	for pkg, want := range map[string]bool{
		"internal/cli": true, "internal/cli/tipctool": true, "internal/client": false, "internal/tipc/bearer/bearertest": true, "tipc": false,
	} {
		if got := within(pkg, []string{"internal/cli/…", "…test"}); got != want {
			t.Errorf("within(%s) is %v", pkg, got)
		}
	}
	for p, want := range map[string]bool{"net/http": true, "golang.org/x/sys/unix": false, module + "/tipc": false} {
		if got := isStd(p); got != want {
			t.Errorf("isStd(%s) is %v", p, got)
		}
	}
	if got, want := fmt.Sprint(trail(map[string]string{"c": "b", "b": "a", "a": ""}, "c")), "a → b → c"; got != want {
		t.Errorf("trail is %s, want %s", got, want)
	}
}
