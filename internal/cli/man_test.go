package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// sample is a small tree with everything that a page has to escape.
func sample() *cobra.Command {
	root := &cobra.Command{Use: "prog", Short: "Do all"}
	verb := &cobra.Command{
		Use: "verb ARG", Short: "Do one - thing", Example: "  prog verb a-b",
		Long: "First.\n.not a request\n\n  as it\n  stands \\n",
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	verb.Flags().StringP("out-file", "o", "", "write to `FILE`")
	verb.Flags().Bool("secret", false, "hidden")
	_ = verb.Flags().MarkHidden("secret")
	hidden := &cobra.Command{Use: "hidden", Hidden: true, RunE: verb.RunE}
	root.AddCommand(verb, hidden)
	return root
}

func TestManPage(t *testing.T) {
	dir := t.TempDir()
	if err := writeMan(sample(), dir); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(pages) != 2 {
		t.Errorf("pages %q, want prog.1 and prog-verb.1", pages)
	}
	b, err := os.ReadFile(filepath.Join(dir, "prog-verb.1"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{
		`.TH "PROG-VERB" 1`, "prog\\-verb \\- Do one \\- thing\n", "\n\\&.not a request\n", "\n.nf\n  as it\n  stands \\en\n.fi\n",
		"\\fB\\-o, \\-\\-out\\-file\\fR \\fIFILE\\fR\nwrite to FILE\n", ".SH EXAMPLES\n.nf\n  prog verb a\\-b\n.fi\n", ".BR prog (1)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "secret") {
		t.Error("the page tells a hidden flag")
	}
	if _, err := exec.LookPath("man"); err == nil {
		out, err := exec.Command("man", "--warnings", "-l", filepath.Join(dir, "prog-verb.1")).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("man: %v\n%s", err, out)
		}
	}
	if err := writeMan(sample(), filepath.Join(dir, "absent")); err == nil {
		t.Error("pages were written into a directory that is not there")
	}
}
