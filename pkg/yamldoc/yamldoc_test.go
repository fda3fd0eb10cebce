package yamldoc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/pratique-sec/pratique/pkg/yamldoc"
)

func split(t testing.TB, in string) []string {
	t.Helper()
	docs, err := yamldoc.Split([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, d := range docs {
		if d.Number != i+1 {
			t.Errorf("document %d has number %d", i+1, d.Number)
		}
		out = append(out, fmt.Sprintf("%d:%s", d.Line, d.Body))
	}
	return out
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"only comments and markers", "# a\n---\n\n# b\n---\n...\n", nil},
		{"one", "a: 1\n", []string{"1:a: 1\n"}},
		{"byte order mark", "\xEF\xBB\xBFa: 1", []string{"1:a: 1"}},
		{"helm template", "---\n# Source: a\na: 1\n---\n# Source: empty\n---\n# Source: b\nb: 1\n", []string{"1:---\n# Source: a\na: 1\n", "6:---\n# Source: b\nb: 1\n"}},
		{"CRLF", "a: 1\r\n---\r\nb: 1\r\n", []string{"1:a: 1\r\n", "2:---\r\nb: 1\r\n"}},
		{"content behind the marker", "--- {a: 1}\n--- # none\n--- b\n", []string{"1:--- {a: 1}\n", "3:--- b\n"}},
		{"no markers", "a: |\n  ---\n  x\n----: 1\n", []string{"1:a: |\n  ---\n  x\n----: 1\n"}},
		{"end marker", "a: 1\n...\nb: 1\n", []string{"1:a: 1\n", "2:...\nb: 1\n"}},
		{"directives", "# c\n%YAML 1.2\n---\na: 1\n...\n%YAML 1.2\n---\nb: 1\n", []string{"1:# c\n%YAML 1.2\n---\na: 1\n", "5:...\n%YAML 1.2\n---\nb: 1\n"}},
		{"JSON", "{\"a\":\n\t1}\n", []string{"1:{\"a\":\n\t1}"}},
		{"JSON one after the other", "{\"a\":1}\n{\"b\":1} {\"c\":1}", []string{"1:{\"a\":1}", "2:{\"b\":1}", "2:{\"c\":1}"}},
		{"JSON that breaks off", "{\"a\":1}\n{\"b\":", []string{"1:{\"a\":1}", "2:{\"b\":"}},
		{"JSON between markers", "---\n{\"a\": 1}\n---\nb: 1\n", []string{"2:{\"a\": 1}", "3:---\nb: 1\n"}},
		{"a flow mapping", "{a: 1}\n", []string{"1:{a: 1}\n"}},
	} {
		if diff := cmp.Diff(c.want, split(t, c.in)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := yamldoc.Split([]byte(strings.Repeat("a: 1\n---\n", yamldoc.MaxDocuments+1))); err == nil {
		t.Error("too many documents were taken")
	}
}

func TestCheck(t *testing.T) {
	large := "a: &a " + strings.Repeat("x", 1<<20) + "\nb:\n" + strings.Repeat("- *a\n", 17)
	for name, c := range map[string]struct{ in, want string }{
		"fine":                 {"a: &x 1\nb: *x\n", ""},
		"fine JSON":            {`{"a": [1, 2]}`, ""},
		"tab":                  {"ok: 1\n---\nb:\n\tc: 1\n", "line 4: YAML: found character that cannot start any token"},
		"unknown alias":        {"a: *x\n", "unknown anchor"},
		"contains itself":      {"a: &x [*x]\n", "contains it"},
		"JSON that breaks off": {"{\"a\":1}\n{\"b\":", "line 2: JSON: "},
		"what aliases repeat":  {large, "aliases stand for too much"},
		"a billion laughs":     {laughs(9), "aliases stand for too much"},
		"a few laughs":         {laughs(3), ""},
	} {
		docs, err := yamldoc.Split([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		_, err = docs[len(docs)-1].Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]int{
		`{"a": [1, {}, "x"], "b": {"c": null}}`: 10,
		"a: [1, {}]\nb: &x c\nd: *x\n":          9, // the document is one
		"a":                                     2,
	} {
		docs, err := yamldoc.Split([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := docs[0].Check(); err != nil || got != want {
			t.Errorf("%s: %d values, want %d; %v", in, got, want, err)
		}
	}
}

func laughs(depth int) string {
	out := "a0: &a0 lol\n"
	for i := range depth {
		out += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	return out
}

// Whatever comes in, splitting loses no document that the YAML library sees, and nothing panics.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a: 1\n---\nb: 2\n", "{\"a\":1}{\"b\":2}", "%YAML 1.1\n---\n&a [*a]\n", "--- |\n x\n...\n", "\xEF\xBB\xBF---\r\n{\t}\n", laughs(9), "a: &a b\n? *a\n: c\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		docs, err := yamldoc.Split(in)
		if err != nil {
			return
		}
		for _, d := range docs {
			if _, err := d.Check(); err != nil || d.JSON {
				continue
			}
			var v yaml.Node
			if err := yaml.Unmarshal(d.Body, &v); err != nil {
				t.Fatalf("checked, and not YAML: %v", err)
			}
		}
	})
}
