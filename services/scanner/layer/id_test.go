package layer

import (
	"encoding/json"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// The analyzers are those of `trivy image --scanners vuln`: no more, no fewer, in these versions. Another
// version of the library changes the golden file, knowingly.
func TestAnalyzerVersions(t *testing.T) {
	e, err := theEngine(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	versions := e.group.AnalyzerVersions()
	got := map[string]map[string]int{"analyzers": versions.Analyzers, "post-analyzers": versions.PostAnalyzers, "handlers": e.handlers.Versions()}
	b, err := os.ReadFile("testdata/versions.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]int
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("testdata/versions.json (-) and the library (+):\n%s", d)
	}
}

func TestTrivyVersion(t *testing.T) {
	for _, file := range []string{"../go.mod", "../oracle/go.mod"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^\s*github\.com/aquasecurity/trivy v(\S+)`).FindSubmatch(b)
		if m == nil || string(m[1]) != trivylib.Version {
			t.Errorf("%s requires %q, trivylib.Version is %s", file, m, trivylib.Version)
		}
	}
}

// Changing anything that facts depend on gives other facts another name.
func TestIDHoldsEveryInput(t *testing.T) {
	e, err := theEngine(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	inputsOf := func() depends { return inputs(e, Config{Bounds: DefaultBounds, JavaDigest: "sha256:java"}) }
	base := id(t, inputsOf())
	if again := id(t, inputsOf()); again != base {
		t.Fatal("equal inputs, other ids")
	}
	seen := map[string]string{base: "nothing"}
	var change func(name string, field func(*depends) reflect.Value)
	change = func(name string, field func(*depends) reflect.Value) {
		d := inputsOf()
		v := field(&d)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(name+"."+v.Type().Field(i).Name, func(d *depends) reflect.Value { return field(d).Field(i) })
			}
			return
		case reflect.Map:
			clone := reflect.MakeMap(v.Type())
			for it := v.MapRange(); it.Next(); {
				clone.SetMapIndex(it.Key(), reflect.ValueOf(int(it.Value().Int()+1)))
			}
			v.Set(clone)
		case reflect.Slice:
			v.Set(v.Slice(1, v.Len()))
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Float64:
			v.SetFloat(v.Float() / 2)
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		default:
			t.Fatalf("%s: do not know how to change a %s", name, v.Kind())
		}
		got := id(t, d)
		if other, ok := seen[got]; ok {
			t.Errorf("changing %s and %s gives the same id", name, other)
		}
		seen[got] = name
	}
	for i := range reflect.TypeFor[depends]().NumField() {
		change(reflect.TypeFor[depends]().Field(i).Name, func(d *depends) reflect.Value { return reflect.ValueOf(d).Elem().Field(i) })
	}
}

func id(t *testing.T, d depends) string {
	t.Helper()
	s, err := d.id()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
