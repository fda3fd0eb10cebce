package config

import (
	"bytes"
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// Dump writes a configuration as the YAML that Load would read, every key in it, in the order of the
// structs. v is a pointer to a struct.
func Dump(v any) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(node(reflect.ValueOf(v).Elem())); err != nil {
		return nil, fmt.Errorf("dump configuration: %w", err)
	}
	return b.Bytes(), e.Close()
}

func node(v reflect.Value) *yaml.Node {
	switch {
	case scalar(v):
		return scalarNode(v)
	case v.Kind() == reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		addFields(n, v)
		return n
	case v.Kind() == reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode, Style: flow(v)}
		for _, key := range slices.SortedFunc(maps.Keys(byName(v)), func(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) }) {
			// A map's values have no address, which node needs.
			item := reflect.New(v.Type().Elem()).Elem()
			item.Set(byName(v)[key])
			n.Content = append(n.Content, word(key), node(item))
		}
		return n
	case v.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: flow(v)}
		for i := range v.Len() {
			n.Content = append(n.Content, node(v.Index(i)))
		}
		return n
	default:
		panic(fmt.Sprintf("config: type %s, which no configuration can set", v.Type()))
	}
}

func addFields(n *yaml.Node, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous:
			addFields(n, v.Field(i))
		case f.IsExported():
			n.Content = append(n.Content, word(Key(f.Name)), node(v.Field(i)))
		}
	}
}

func byName(v reflect.Value) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for it := v.MapRange(); it.Next(); {
		all[it.Key().String()] = it.Value()
	}
	return all
}

// flow writes what is empty on its key's line.
func flow(v reflect.Value) yaml.Style {
	if v.Len() == 0 {
		return yaml.FlowStyle
	}
	return 0
}

func word(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func scalarNode(v reflect.Value) *yaml.Node {
	if m, ok := v.Addr().Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return word(string(text))
		}
	}
	if v.Type() == durationType {
		return word(time.Duration(v.Int()).String())
	}
	if v.Kind() == reflect.String {
		return word(v.String())
	}
	n := &yaml.Node{}
	if err := n.Encode(v.Interface()); err != nil {
		return word(fmt.Sprint(v.Interface()))
	}
	return n
}

// Changed are the paths at which two configurations of one type differ, sorted; lists and maps count as one
// value. Both are pointers to structs.
func Changed(a, b any) []string {
	var paths []string
	changed(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), "", &paths)
	slices.Sort(paths)
	return paths
}

func changed(a, b reflect.Value, path string, paths *[]string) {
	if a.Kind() == reflect.Struct && !scalar(a) {
		others := fields(b)
		for key, field := range fields(a) {
			changed(field, others[key], join(path, key), paths)
		}
		return
	}
	if !reflect.DeepEqual(a.Interface(), b.Interface()) {
		*paths = append(*paths, path)
	}
}
