package alertrouter_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pratique-sec/pratique/services/alertrouter"
	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

// The example of the documentation is one that works.
func TestExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", "alertmanager.yml"))
	must(t, err)
	path := file(t, string(text))
	for name, secret := range map[string]string{"slack-url": "https://hooks.slack.example/x", "platform-url": "http://platform.example", "tickets-token": "x"} {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(secret), 0o600))
	}
	must(t, alertrouter.Config{Config: path, ExternalURL: "https://pratique.example"}.Validate())
	table, err := route.Load(path)
	must(t, err)
	if len(table.Warnings) > 0 {
		t.Errorf("warns of %v", table.Warnings)
	}
	for _, c := range []struct {
		labels map[string]string
		quiet  bool
		want   []string
	}{
		{map[string]string{"class": "vuln", "severity": "low"}, false, nil},
		{map[string]string{"class": "vuln", "severity": "critical", "fixable": "yes", "repository": "payments/api", "cause": "push"}, false, []string{"payments"}},
		{map[string]string{"class": "vuln", "severity": "high", "cause": "push"}, false, []string{"board"}},
		{map[string]string{"class": "vuln", "severity": "critical", "cause": "rematch"}, true, []string{"security"}},
		{map[string]string{"class": "vuln", "severity": "high", "cause": "rematch"}, true, nil},
		{map[string]string{"class": "system", "severity": "high", "notice": "stream-full"}, false, []string{"platform"}},
	} {
		var got []string
		for _, target := range table.Match(c.labels, c.quiet) {
			got = append(got, target.Receiver)
		}
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%v goes to %v, want %v", c.labels, got, c.want)
		}
	}
}
