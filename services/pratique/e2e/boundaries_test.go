package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/pratique-sec/pratique/"

// boundaries are the imports that would undo the design. Each is checked over everything that a
// package links, not only over what it names.
var boundaries = []struct {
	packages []string // package paths below the project's; "/..." takes those below
	never    []string // import path prefixes
	because  string
}{
	{
		packages: []string{"pkg/image", "pkg/reason", "pkg/event", "pkg/work", "pkg/report", "pkg/finding", "pkg/facts", "pkg/fate", "pkg/track", "pkg/vulndb", "pkg/system", "pkg/key", "pkg/alert", "pkg/breaker", "pkg/compact"},
		never:    []string{"github.com/nats-io/", "github.com/redis/", "net/http", "google.golang.org/protobuf", module + "proto", "github.com/aquasecurity/"},
		because:  "domain code knows no transport, no schema and no engine: it is what the others agree on",
	},
	{
		packages: []string{"pkg/...", "services/ingest/...", "services/layercache/...", "services/psaauditor/...", "services/alertrouter/..."},
		never:    []string{"github.com/aquasecurity/", "modernc.org/sqlite"},
		because:  "Trivy is the scanner's alone: it costs minutes of compiling and 150 MB of binary",
	},
	{
		packages: []string{"services/layercache/plan"},
		never:    []string{"github.com/nats-io/", "github.com/redis/"},
		because:  "planning is given small interfaces; the adapters sit beside it",
	},
	{
		packages: []string{"services/scanner/layer", "services/scanner/match", "services/scanner/advisory"},
		never:    []string{"github.com/nats-io/", module + "pkg/bus", module + "pkg/facts/busfacts", module + "pkg/facts/redisfacts", module + "pkg/facts/front"}, // Redis comes with Trivy's own cache
		because:  "analysing and judging are given small interfaces; the adapters sit beside them",
	},
	{
		packages: []string{"services/scanner/match"},
		never:    []string{"github.com/aquasecurity/trivy/pkg/fanal/analyzer/language/", "github.com/aquasecurity/trivy/pkg/fanal/analyzer/pkg/"},
		because:  "what only matches does not link the analyzers",
	},
	{
		packages: []string{"services/alertrouter/group"},
		never:    []string{"github.com/nats-io/", "github.com/prometheus/", "net/http", module + "pkg/bus"},
		because:  "what is told and when is decided by values only, so that it can be held against a model",
	},
	{
		packages: []string{"services/alertrouter/route", "services/alertrouter/receiver"},
		never:    []string{"github.com/nats-io/", module + "pkg/bus"},
		because:  "who is told and how knows nothing of where that is kept; the outbox does",
	},
	{
		packages: []string{"services/psaauditor/manifest", "services/psaauditor/verdict"},
		never:    []string{"github.com/nats-io/", module + "pkg/bus"},
		because:  "the command line judges files with them, without a NATS",
	},
	{
		packages: []string{"pkg/subscriber"},
		never:    []string{module + "pkg/bus", module + "pkg/service", module + "pkg/registry", "github.com/redis/", "github.com/prometheus/"},
		because:  "a subscriber stands outside: it knows the contract, and carries nothing of a service",
	},
	{
		packages: []string{"pkg/access"},
		never:    []string{"github.com/nats-io/nats.go", "github.com/nats-io/nats-server/"},
		because:  "who may do what is data, and needs no connection",
	},
	{
		packages: []string{"pkg/config"},
		never:    []string{module},
		because:  "configuration is read for services that it does not know",
	},
	{
		packages: []string{"pkg/..."},
		never:    []string{module + "services/", "github.com/nats-io/nats-server/", "k8s.io/", "github.com/prometheus/alertmanager/"},
		because:  "what all share carries no service's dependencies",
	},
	{
		packages: []string{"services/ingest/..."},
		never:    append(others("ingest"), "github.com/redis/", "github.com/google/go-containerregistry", "k8s.io/", "github.com/prometheus/alertmanager/"),
		because:  "each service carries only its own dependencies; ingest stores what it is told, and asks nobody",
	},
	{
		packages: []string{"services/layercache/..."},
		never:    append(others("layercache"), "k8s.io/", "github.com/prometheus/alertmanager/"),
		because:  "each service carries only its own dependencies",
	},
	{
		packages: []string{"services/scanner/..."},
		never:    append(others("scanner"), "github.com/prometheus/alertmanager/"),
		because:  "each service carries only its own dependencies",
	},
	{
		packages: []string{"services/psaauditor/..."},
		never:    append(others("psaauditor"), "github.com/redis/", "github.com/google/go-containerregistry", "k8s.io/client-go/kubernetes", "github.com/prometheus/alertmanager/"),
		because:  "each service carries only its own dependencies; the auditor talks to no registry and no cluster",
	},
	{
		packages: []string{"services/alertrouter/..."},
		never:    append(others("alertrouter"), "github.com/redis/", "github.com/google/go-containerregistry", "k8s.io/"),
		because:  "each service carries only its own dependencies",
	},
}

// others are what no service links: another one, and NATS's server.
func others(service string) []string {
	never := []string{"github.com/nats-io/nats-server/"}
	for _, s := range []string{"ingest", "layercache", "scanner", "psaauditor", "alertrouter", "pratique"} {
		if s != service {
			never = append(never, module+"services/"+s)
		}
	}
	return never
}

func TestImportBoundaries(t *testing.T) {
	for _, b := range boundaries {
		for _, pkg := range b.packages {
			for _, line := range dependencies(t, module+pkg) {
				importer, imports, _ := strings.Cut(line, " ")
				for dep := range strings.FieldsSeq(imports) {
					for _, never := range b.never {
						if dep == strings.TrimSuffix(never, "/") || strings.HasPrefix(dep, never) {
							t.Errorf("%s links %s: %s", importer, dep, b.because)
						}
					}
				}
			}
		}
	}
}

// dependencies lists each package of a pattern with all that it links, tests not counted.
func dependencies(t *testing.T, pattern string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", pattern).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pattern, err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		importer, _, _ := strings.Cut(line, " ")
		// test support may start servers
		if !strings.HasSuffix(importer, "test") && !strings.HasSuffix(importer, "/deps") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no package matches %s", pattern)
	}
	return lines
}
