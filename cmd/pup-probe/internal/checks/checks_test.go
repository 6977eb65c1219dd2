package checks

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pup/cmd/internal/catalog"
	"pup/cmd/internal/expr"
	"pup/cmd/pup-probe/internal/probe"
)

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(strings.TrimSuffix(testCA().file, "ca.pem"))
	os.Exit(code)
}

// TestNames holds each file to names that begin with its own.
func TestNames(t *testing.T) {
	decl := regexp.MustCompile(`(?m)^(?:func|type|var|const) ([A-Za-z_0-9]+)`)
	shared := []string{"checks.go", "steps.go", "starttls.go"}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".go")
		if !ok || strings.HasSuffix(name, "_test") || slices.Contains(shared, f.Name()) {
			continue
		}
		stem, _, _ := strings.Cut(name, "_")
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range decl.FindAllSubmatch(src, -1) {
			id := string(m[1])
			if id != "init" && !strings.HasPrefix(strings.ToLower(strings.TrimPrefix(id, "err")), stem) {
				t.Errorf("%s declares %s, which does not begin with %s (errors: with err and that)", f.Name(), id, stem)
			}
		}
	}
}

// TestInfo holds what a check says of itself to the form that the manual and
// pup-sched need.
func TestInfo(t *testing.T) {
	r := probe.NewRunner(All())
	b, err := r.Catalog.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := catalog.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if b2, _ := parsed.MarshalJSON(); !bytes.Equal(b, b2) {
		t.Errorf("the catalogue is not the same after it was written and read")
	}
	owner := map[string]string{}
	for _, c := range All() {
		for _, s := range c.Schemes {
			if owner[s.Name] != "" {
				t.Errorf("%s:// belongs to both %s and %s", s.Name, owner[s.Name], c.Name)
			}
			owner[s.Name] = c.Name
		}
		if c.Summary == "" || c.Doc == "" || len(c.Schemes) == 0 || strings.HasSuffix(c.Summary, ".") {
			t.Errorf("%s: wants a summary without period, a doc and a scheme", c.Name)
		}
		if _, err := r.Catalog.ParseURL(c.Example, ""); err != nil {
			t.Errorf("%s: example: %v", c.Name, err)
		}
		for _, text := range append(slices.Clip(c.Expect), c.Warn...) {
			if _, err := expr.Compile(text, r.Catalog.Check(c.Name).Env()); err != nil {
				t.Errorf("%s: default %v", c.Name, err)
			}
		}
	}
}
