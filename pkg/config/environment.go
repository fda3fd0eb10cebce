package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Prefix begins the name of every variable that is configuration.
const Prefix = "PRATIQUE_"

// FileVariable names the configuration file; it is for whoever calls Load.
const FileVariable = Prefix + "CONFIG"

// serviceLinks are variables that Kubernetes puts into every container for each Service of the namespace,
// one called pratique-ingest, say. Nobody configured anything by them.
var serviceLinks = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Variable is the environment's name of a path: "nats.url" is PRATIQUE_NATS_URL.
func Variable(path string) string {
	var b strings.Builder
	b.WriteString(Prefix)
	before := '.'
	for _, r := range path {
		switch {
		case r == '.':
			b.WriteByte('_')
		case unicode.IsUpper(r) && unicode.IsLower(before): // a run of capitals is one word
			b.WriteByte('_')
			b.WriteRune(r)
		default:
			b.WriteRune(unicode.ToUpper(r))
		}
		before = r
	}
	return b.String()
}

// Variables are all variables that into can be set by, sorted: one for each scalar, and for each list of
// scalars, whose items commas separate. What is in maps and lists of structs has none.
func Variables(into any) []string {
	return slices.Sorted(maps.Keys(settable(reflect.ValueOf(into).Elem(), "")))
}

func settable(v reflect.Value, path string) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for key, field := range fields(v) {
		at := join(path, key)
		switch {
		case scalar(field), field.Kind() == reflect.Slice && scalar(reflect.New(field.Type().Elem()).Elem()):
			all[Variable(at)] = field
		case field.Kind() == reflect.Struct:
			maps.Copy(all, settable(field, at))
		}
	}
	return all
}

// environment sets what variables name. An unknown one is a mistake that would go unnoticed.
func (d *decoder) environment(environ []string, into any) {
	known := settable(reflect.ValueOf(into).Elem(), "")
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, Prefix) || name == FileVariable {
			continue
		}
		v, ok := known[name]
		if !ok {
			if !serviceLinks.MatchString(name) {
				d.failf(name, "no such variable; --print-config shows what can be set")
			}
			continue
		}
		if scalar(v) {
			if err := setScalar(v, value); err != nil {
				d.failf(name, "%v", err)
			}
			continue
		}
		d.list(name, value, v)
	}
}

func (d *decoder) list(name, value string, v reflect.Value) {
	items := strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := setScalar(list.Index(i), strings.TrimSpace(item)); err != nil {
			d.failf(name, "item %d: %v", i+1, err)
		}
	}
	v.Set(list)
}
