package deploy_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// minimal are the variables without which a program has no configuration.
var minimal = map[string][]string{
	"ingest": {"PRATIQUE_INGEST_ALLOW_ANONYMOUS=true"}, "alertrouter": {"PRATIQUE_ALERTROUTER_CONFIG=compose/alertmanager.yaml"},
}

// defaults are all keys of a program with their defaults; of what has none, "".
func defaults(t *testing.T, service string) map[string]string {
	t.Helper()
	text, said, code := run(t, minimal[service], "pratique-"+service, "--print-config")
	if code != 0 {
		t.Fatalf("pratique-%s --print-config: %s", service, said)
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
			all[path] = n.Value
			return
		}
		for i := 0; i < len(n.Content); i += 2 {
			walk(strings.TrimPrefix(path+"."+n.Content[i].Value, "."), n.Content[i+1])
		}
	}
	walk("", root.Content[0])
	for _, v := range minimal[service] { // not a default, then
		name, _, _ := strings.Cut(v, "=")
		for key := range all {
			if variable(key) == name {
				all[key] = ""
			}
		}
	}
	return all
}

// variable is the environment's name of a key, as docs/configuration.md explains it.
func variable(key string) string {
	return "PRATIQUE_" + strings.ToUpper(strings.ReplaceAll(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(key, "${1}_$2"), ".", "_"))
}

// documented are the rows of docs/configuration.md by section: keys with the default that is shown.
func documented(t *testing.T) map[string]map[string]string {
	t.Helper()
	sections := map[string]map[string]string{}
	for _, section := range strings.Split(read(t, "../docs/configuration.md"), "\n## ")[1:] {
		title, rest, _ := strings.Cut(section, "\n")
		rows := map[string]string{}
		for _, m := range regexp.MustCompile("(?m)^\\| ((?:`[\\w.]+`(?:, )?)+) \\| (.*?) \\|").FindAllStringSubmatch(rest, -1) {
			for _, key := range regexp.MustCompile("`([\\w.]+)`").FindAllStringSubmatch(m[1], -1) {
				if _, twice := rows[key[1]]; twice {
					t.Errorf("docs/configuration.md: %s has two rows for %s", title, key[1])
				}
				rows[key[1]] = m[2]
			}
		}
		sections[title] = rows
	}
	return sections
}

// docs/configuration.md has every key of every program and no other, with the defaults that are so.
func TestConfigurationPage(t *testing.T) {
	page := documented(t)
	for _, name := range services {
		got := defaults(t, name)
		want := maps.Clone(page["Every program"])
		maps.Copy(want, page["pratique-"+name])
		if name == "scanner" { // has these in common with layercache
			for key, value := range page["pratique-layercache"] {
				if strings.HasPrefix(key, "redis.") || strings.HasPrefix(key, "registries.") {
					want[key] = value
				}
			}
		}
		for _, key := range sorted(got) {
			shown, ok := want[key]
			if !ok {
				t.Errorf("docs/configuration.md: pratique-%s has no row for %s", name, key)
			}
			value := got[key]
			unset := value == "" || value == "0" || value == "0s"
			if !unset && value != shown {
				t.Errorf("docs/configuration.md: %s is %q by default, not %q", key, value, shown)
			}
		}
		for _, key := range sorted(want) {
			if _, ok := got[key]; !ok {
				t.Errorf("docs/configuration.md: pratique-%s knows no %s", name, key)
			}
		}
	}
}

// Flags that pages show are there.
func TestFlagsInPages(t *testing.T) {
	for _, m := range regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\|").FindAllStringSubmatch(read(t, "../docs/configuration.md"), -1) {
		for _, name := range services {
			if !slices.Contains(flags(t, "pratique-"+name), m[1]) {
				t.Errorf("docs/configuration.md: pratique-%s has no %s", name, m[1])
			}
		}
	}
	for _, page := range []string{"operations", "runbook"} {
		for _, m := range regexp.MustCompile(`(?:^ {4}|`+"`"+`)pratique ([a-z]+(?: [a-z]+)?)`).FindAllStringSubmatch(read(t, "../docs/"+page+".md"), -1) {
			if _, said, code := run(t, nil, "pratique", append(strings.Fields(m[1]), "--help")...); code != 0 {
				t.Errorf("docs/%s.md: pratique %s: %s", page, m[1], said)
			}
		}
	}
}
