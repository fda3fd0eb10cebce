package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// A domain field that the wire forgets fails here.
func TestEveryDomainFieldSurvives(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			want := filled(t, f)
			b, err := f.encode(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decoded differs (-want +got):\n%s", diff)
			}
		})
	}
}

// And so does a schema field that no domain field fills.
func TestEverySchemaFieldIsFilled(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			m, err := f.message(filled(t, f))
			if err != nil {
				t.Fatal(err)
			}
			everyField(m.ProtoReflect(), f.name, func(path string) {
				// One message serves facts, which are of one layer, and reports, which are of many.
				if path != "Facts.not_read.diff_id" {
					t.Errorf("%s is empty", path)
				}
			})
		})
	}
}

func everyField(m protoreflect.Message, path string, empty func(path string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + "." + string(fd.Name())
		value := m.Get(fd)
		switch {
		case !m.Has(fd):
			empty(at)
		case fd.IsMap():
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				if fd.MapValue().Message() != nil {
					everyField(v.Message(), at, empty)
				}
				return true
			})
		case fd.IsList() && fd.Message() != nil:
			for i := range value.List().Len() {
				everyField(value.List().Get(i).Message(), at, empty)
			}
		case fd.Message() != nil && fd.Message().FullName() != "google.protobuf.Timestamp":
			everyField(value.Message(), at, empty)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				want := drawn{t: rt}.value(t, f)
				b, err := f.encode(want)
				if err != nil {
					rt.Fatal(err)
				}
				got, err := f.decode(b)
				if err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatalf("decoded differs (-want +got):\n%s", diff)
				}
				line, err := f.json(want)
				if err != nil {
					rt.Fatal(err)
				}
				if bytes.ContainsAny(line, "\r\n") {
					rt.Fatalf("JSON is more than a line: %s", line)
				}
				got, err = f.fromJSON(line)
				if err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					rt.Fatalf("from JSON differs (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Whatever bytes a layer calls a path, they travel as text, and change no more once they have.
func TestTextThatIsNoUTF8(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				b, err := f.encode(drawn{t: rt, hostile: true}.value(t, f))
				if err != nil {
					rt.Fatal(err)
				}
				v, err := f.decode(b)
				if err != nil {
					rt.Fatal(err)
				}
				everyText(reflect.ValueOf(v), func(s string) {
					if !utf8.ValidString(s) {
						rt.Fatalf("%q came out", s)
					}
				})
				again, err := f.encode(v)
				if err != nil {
					rt.Fatal(err)
				}
				if !bytes.Equal(b, again) {
					rt.Fatal("encoding what was decoded gives other bytes")
				}
			})
		})
	}
}

func TestTextThatIsNoUTF8IsReplaced(t *testing.T) {
	r := filled(t, formNamed(t, "Event"))
	v := reflect.New(reflect.TypeOf(r)).Elem()
	v.Set(reflect.ValueOf(r))
	v.FieldByName("Actor").SetString("a\xffb\xc3")
	b, err := formNamed(t, "Event").encode(v.Interface())
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeEvent(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Actor != "a\uFFFDb\uFFFD" {
		t.Errorf("Actor = %q", got.Actor)
	}
}

func everyText(v reflect.Value, visit func(string)) {
	switch v.Kind() {
	case reflect.String:
		visit(v.String())
	case reflect.Pointer:
		if !v.IsNil() {
			everyText(v.Elem(), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				everyText(v.Field(i), visit)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			everyText(v.Index(i), visit)
		}
	case reflect.Map:
		for k, e := range v.Seq2() {
			everyText(k, visit)
			everyText(e, visit)
		}
	}
}

func TestEncodingIsDeterministic(t *testing.T) {
	for _, f := range forms {
		v := filled(t, f)
		first, err := f.encode(v)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // maps are ranged over anew each time
			if again, err := f.encode(v); err != nil || !bytes.Equal(first, again) {
				t.Fatalf("%s: the same value gave other bytes (err %v)", f.name, err)
			}
		}
	}
}

func TestTypeConstantsNameTheirMessages(t *testing.T) {
	for _, f := range forms {
		m, err := f.message(filled(t, f))
		if err != nil {
			t.Fatal(err)
		}
		full := string(proto.MessageName(m))
		if f.typeName != "" && f.typeName != full {
			t.Errorf("constant %q is the type of a %s", f.typeName, full)
		}
		if !strings.HasSuffix(full, "."+f.name) {
			t.Errorf("form %s holds a %s", f.name, full)
		}
	}
}
