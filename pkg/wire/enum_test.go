package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pratique-sec/pratique/pkg/report"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// A word that the domain gains and the schema does not have would be refused only in production.
func TestVocabulariesMatchTheDomain(t *testing.T) {
	for typ, have := range vocabularies {
		want := constants(t, filepath.Join("..", filepath.Base(typ.PkgPath())), typ.Name())
		if !slices.Equal(have, want) {
			t.Errorf("%s: the schema has %q, the domain %q", typ, have, want)
		}
	}
}

// constants reads the string constants of a type from a package's source.
func constants(t *testing.T, dir, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s (%v)", dir, err)
	}
	var out []string
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if ident, ok := spec.Type.(*ast.Ident); !ok || ident.Name != typeName {
				return true
			}
			for _, value := range spec.Values {
				if lit, ok := value.(*ast.BasicLit); ok {
					word, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					out = append(out, word)
				}
			}
			return true
		})
	}
	slices.Sort(out)
	return out
}

func TestSchemaEnumsAreMapped(t *testing.T) {
	check := func(descriptor protoreflect.EnumDescriptor, mapped int) {
		t.Helper()
		if all := descriptor.Values().Len() - 1; all != mapped { // but UNSPECIFIED
			t.Errorf("%s has %d values, %d are mapped", descriptor.FullName(), all, mapped)
		}
	}
	check(pb.EventKind(0).Descriptor(), len(eventKinds.domain))
	check(pb.Action(0).Descriptor(), len(actions.domain))
	check(pb.Cause(0).Descriptor(), len(causes.domain))
	check(pb.Lane(0).Descriptor(), len(lanes.domain))
	check(pb.CostClass(0).Descriptor(), len(costClasses.domain))
	check(pb.DatabaseKind(0).Descriptor(), len(databaseKinds.domain))
	check(pb.Outcome(0).Descriptor(), len(outcomes.domain))
	check(pb.FindingClass(0).Descriptor(), len(findingClasses.domain))
	check(pb.Transition(0).Descriptor(), len(transitions.domain))
	check(pb.Resolution(0).Descriptor(), len(resolutions.domain))
	check(pb.Stage(0).Descriptor(), len(stages.domain))
	check(pb.Severity(0).Descriptor(), int(report.Critical)+1)
}

func TestEnumOfANewerSchema(t *testing.T) {
	for _, number := range []pb.Outcome{99, -5, 2147483647, -2147483648} {
		word := outcomes.decode(number)
		if want := report.Outcome("unrecognized-" + strconv.Itoa(int(number))); word != want {
			t.Errorf("decode(%d) = %q, want %q", number, word, want)
		}
		e := &encoder{}
		if got := outcomes.encode(e, "outcome", word); got != number || e.err != nil {
			t.Errorf("encode(%q) = %d, %v; want %d", word, got, e.err, number)
		}
	}
	for _, s := range []pb.Severity{pb.Severity_SEVERITY_UNSPECIFIED, 99, -1} {
		if got := (&decoder{}).severity(s); got != report.Unknown {
			t.Errorf("severity %d = %s, want unknown", s, got)
		}
	}
}

func TestEnumWordsThatTheSchemaLacksAreRefused(t *testing.T) {
	for _, word := range []report.Outcome{
		"other", "unrecognized-", "unrecognized-x", "unrecognized-0", "unrecognized-1", "unrecognized-+99",
		"unrecognized-099", "unrecognized-99999999999", "Clean",
	} {
		e := &encoder{}
		if got := outcomes.encode(e, "outcome", word); e.err == nil {
			t.Errorf("encode(%q) = %d, want an error", word, got)
		}
	}
}

func TestSeverityKeepsItsOrder(t *testing.T) {
	e, d := &encoder{}, &decoder{}
	for s := report.Unknown; s <= report.Critical; s++ {
		if got := d.severity(e.severity(s)); got != s {
			t.Errorf("%s came back as %s", s, got)
		}
		if s > report.Unknown && e.severity(s) <= e.severity(s-1) {
			t.Errorf("%s is not above %s on the wire", s, s-1)
		}
	}
}
