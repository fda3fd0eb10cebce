package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds aliases that contain themselves.
const maxDepth = 32

// decoder collects what is wrong on its way.
type decoder struct{ problems Problems }

func (d *decoder) failf(path, format string, args ...any) {
	d.problems = append(d.problems, Problem{path, fmt.Sprintf(format, args...)})
}

func (d *decoder) file(n *yaml.Node, into any) {
	if n != nil {
		d.value(n, reflect.ValueOf(into).Elem(), "", 0)
	}
}

var durationType = reflect.TypeFor[time.Duration]()

// value sets v from a node. Nothing written (null) leaves the default.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if depth > maxDepth {
		d.failf(path, "line %d: nested too deeply", n.Line)
		return
	}
	if n.Kind == yaml.AliasNode {
		d.value(n.Alias, v, path, depth+1)
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	switch {
	case scalar(v):
		if n.Kind != yaml.ScalarNode {
			d.failf(path, "line %d: want %s, not %s", n.Line, wanted(v), kind(n))
			return
		}
		if err := setScalar(v, n.Value); err != nil {
			d.failf(path, "line %d: %v", n.Line, err)
		}
	case v.Kind() == reflect.Struct:
		d.fields(n, v, path, depth)
	case v.Kind() == reflect.Map:
		d.entries(n, v, path, depth)
	case v.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.failf(path, "line %d: want a list, not %s", n.Line, kind(n))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			d.value(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		v.Set(list)
	default:
		panic(fmt.Sprintf("config: %s has type %s, which no configuration can set", path, v.Type()))
	}
}

func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.failf(path, "line %d: want keys and values, not %s", n.Line, kind(n))
		return
	}
	known := fields(v)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key.Value)
		field, ok := known[key.Value]
		switch {
		case !ok:
			d.failf(at, "line %d: no such key; there are %s", key.Line, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case seen[key.Value]:
			d.failf(at, "line %d: written twice", key.Line)
		default:
			seen[key.Value] = true
			d.value(n.Content[i+1], field, at, depth+1)
		}
	}
}

// entries replaces a map: what stands in the file is all of it.
func (d *decoder) entries(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.failf(path, "line %d: want keys and values, not %s", n.Line, kind(n))
		return
	}
	m := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key())
		at := fmt.Sprintf("%s[%s]", path, n.Content[i].Value)
		if m.MapIndex(key).IsValid() {
			d.failf(at, "line %d: written twice", n.Content[i].Line)
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], item, at, depth+1)
		m.SetMapIndex(key, item)
	}
	v.Set(m)
}

// validate asks the whole and each of its sections, where they can be asked.
func (d *decoder) validate(into any) { d.validateValue(reflect.ValueOf(into).Elem(), "") }

func (d *decoder) validateValue(v reflect.Value, path string) {
	if v.Kind() == reflect.Struct && !scalar(v) {
		for key, field := range fields(v) {
			d.validateValue(field, join(path, key))
		}
	}
	var validator Validator
	if v.CanAddr() {
		validator, _ = v.Addr().Interface().(Validator)
	}
	// What is in a section is asked by the section.
	if validator == nil || strings.Contains(path, ".") {
		return
	}
	for _, err := range parts(validator.Validate()) {
		at, text, ok := strings.Cut(err.Error(), ": ")
		if !ok || strings.ContainsAny(at, " \"") {
			d.failf(path, "%s", err.Error())
			continue
		}
		d.failf(join(path, at), "%s", text)
	}
}

// parts are the leaves of a join.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// fields are a struct's own and those of what it embeds, by key.
func fields(v reflect.Value) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous:
			maps.Copy(all, fields(v.Field(i)))
		case f.IsExported():
			all[Key(f.Name)] = v.Field(i)
		}
	}
	return all
}

// scalar tells whether v is written as one word.
func scalar(v reflect.Value) bool {
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return true
	}
	switch v.Kind() {
	case reflect.Bool, reflect.String, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return false
	}
}

// setScalar sets v from its text.
func setScalar(v reflect.Value, s string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch {
	case v.Type() == durationType:
		t, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("want a duration as in 30s or 1h30m, not %q", s)
		}
		v.SetInt(int64(t))
		return nil
	case v.Kind() == reflect.String:
		v.SetString(s)
		return nil
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if err := node.Decode(v.Addr().Interface()); err != nil {
		return fmt.Errorf("want %s, not %q", wanted(v), s)
	}
	return nil
}

func wanted(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return "a duration as in 30s"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.Kind() == reflect.String:
		return "a text"
	case v.Kind() == reflect.Float64:
		return "a number"
	case v.CanInt() || v.CanUint():
		return "a whole number"
	default:
		return "one word"
	}
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "one word" // which may be a secret in the wrong place
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Key is a field's name as it is written in a file: GiveUp is giveUp, TLSFiles tlsFiles, NATS nats.
func Key(field string) string {
	r := []rune(field)
	n := 0
	for n < len(r) && unicode.IsUpper(r[n]) {
		n++
	}
	if n > 1 && n < len(r) && unicode.IsLower(r[n]) {
		n-- // the last capital begins the next word
	}
	return strings.ToLower(string(r[:n])) + string(r[n:])
}
