package cmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// auditWith runs psa audit with something on standard input.
func auditWith(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), append([]string{"psa", "audit"}, args...), Env{
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr, Now: time.Now,
		Getenv: func(string) string { return "" },
	})
	return outcome{code, stdout.String(), stderr.String()}
}

const (
	deniedDeployment = `# Source: chart/templates/api.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: team-a}
spec:
  template:
    spec:
      hostNetwork: true
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: api
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`
	allowedCronJob = `apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy}
spec:
  jobTemplate:
    spec:
      template:
        spec:
          securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
          containers:
          - name: tidy
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`
	configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
	malformed = "apiVersion: v1\nkind: Pod\nmetadata: {name: p\n"
)

func documents(docs ...string) string { return "---\n" + strings.Join(docs, "---\n") }

func TestPSAAuditJSON(t *testing.T) {
	got := auditWith(t, documents(configMap, deniedDeployment, allowedCronJob), "-o", "json", "-")
	if got.code != ExitThreshold || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	want := []string{
		`{"file":"-","document":2,"kind":"Deployment","namespace":"team-a","name":"api","level":"restricted","version":"latest","allowed":false,"violations":[{"check":"hostNamespaces","message":"host namespaces (hostNetwork=true)"}]}`,
		`{"file":"-","document":3,"kind":"CronJob","namespace":"","name":"tidy","level":"restricted","version":"latest","allowed":true,"violations":[]}`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", got.stdout, strings.Join(want, "\n"))
	}
}

// The exit code says whether something is not allowed, and before that whether all was read.
func TestPSAAuditExitCodes(t *testing.T) {
	for _, c := range []struct {
		name, stdin string
		args        []string
		code        int
		stdout      []string
		stderr      string
	}{
		{"allowed", allowedCronJob, nil, ExitOK, []string{"allowed  CronJob tidy", "1 object judged by restricted, latest: 1 allowed, 0 denied"}, ""},
		{"denied", documents(deniedDeployment, configMap), nil, ExitThreshold, []string{"DENIED   Deployment team-a/api  document 1", "BASELINE    hostNamespaces  host namespaces (hostNetwork=true)", "; 1 other without pods"}, ""},
		{"nothing to judge", configMap, nil, ExitOK, []string{"0 objects judged"}, ""},
		{"unread before denied", documents(malformed, deniedDeployment), nil, ExitFailed, []string{"DENIED"}, "pratique: -: document 1: line 3: YAML:"},
		{"only unread", malformed, []string{"-o", "json"}, ExitFailed, nil, "document 1"},
		{"nothing at all", "# nothing\n", nil, ExitFailed, nil, "there is no document"},
		{"another level", strings.Replace(deniedDeployment, "hostNetwork: true", "hostUsers: true", 1), []string{"--level", "baseline", "--version", "v1.30"}, ExitOK, []string{"judged by baseline, v1.30"}, ""},
		{"a version that is not known", allowedCronJob, []string{"--version", "v1.99"}, ExitOK, []string{"judged by restricted, v1.99"}, "--version v1.99: judged as v1.37"},
	} {
		got := auditWith(t, c.stdin, append(c.args, "-")...)
		if got.code != c.code || !strings.Contains(got.stderr, c.stderr) || c.stderr == "" && got.stderr != "" {
			t.Errorf("%s: exit code %d, want %d; stderr %q, want %q", c.name, got.code, c.code, got.stderr, c.stderr)
		}
		for _, want := range c.stdout {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%s: stdout lacks %q:\n%s", c.name, want, got.stdout)
			}
		}
		if len(c.stdout) == 0 && got.stdout != "" {
			t.Errorf("%s: stdout has %q", c.name, got.stdout)
		}
	}
}

func TestPSAAuditFolders(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{
		"a/deployment.yaml": deniedDeployment,
		"a/b/cron.yml":      allowedCronJob,
		"a/b/list.json":     `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"a"}]}}]}`,
		"a/README.md":       malformed,
		".git/x.yaml":       malformed,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A file that is named is read whatever it is called.
	got := auditWith(t, "", "-o", "json", dir, filepath.Join(dir, "a/README.md"))
	if got.code != ExitFailed || !strings.Contains(got.stderr, "README.md: document 1") || strings.Contains(got.stderr, ".git") {
		t.Errorf("%+v", got)
	}
	var seen []string
	for line := range strings.Lines(got.stdout) {
		var l psaLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(dir, l.File)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, rel+" "+l.Kind+" "+l.Name)
	}
	if want := []string{"a/b/cron.yml CronJob tidy", "a/b/list.json Pod p", "a/deployment.yaml Deployment api"}; !slices.Equal(seen, want) {
		t.Errorf("judged %q, want %q", seen, want)
	}
}
