package manifest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
)

const containers = "containers: [{name: a, image: b}]"

// flow writes an object on a line.
func flow(apiVersion, kind, metadata, rest string) string {
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {%s}, %s}", apiVersion, kind, metadata, rest)
}

func described(s manifest.Set) (out []string) {
	for _, o := range s.Objects {
		line := fmt.Sprintf("%d %s %s/%s %s", o.Document, o.Kind, o.Namespace, o.Name, o.Field("spec"))
		if o.Owner != nil {
			line += " of " + o.Owner.Kind + " " + o.Owner.Name
		}
		out = append(out, line)
	}
	return out
}

func TestKinds(t *testing.T) {
	template := "spec: {template: {spec: {" + containers + "}}}"
	for _, c := range []struct{ object, want string }{
		{flow("v1", "Pod", "name: w", "spec: {"+containers+"}"), "1 Pod /w spec"},
		{flow("v1", "PodTemplate", "name: w", "template: {spec: {"+containers+"}}"), "1 PodTemplate /w template.spec"},
		{flow("v1", "ReplicationController", "name: w, namespace: x", template), "1 ReplicationController x/w spec.template.spec"},
		{flow("apps/v1", "Deployment", "name: w", template), "1 Deployment /w spec.template.spec"},
		{flow("apps/v1beta2", "Deployment", "name: w", template), "1 Deployment /w spec.template.spec"},
		{flow("extensions/v1beta1", "DaemonSet", "name: w", template), "1 DaemonSet /w spec.template.spec"},
		{flow("apps/v1", "ReplicaSet", "name: w", template), "1 ReplicaSet /w spec.template.spec"},
		{flow("apps/v1", "StatefulSet", "name: w", template), "1 StatefulSet /w spec.template.spec"},
		{flow("apps/v1", "DaemonSet", "name: w", template), "1 DaemonSet /w spec.template.spec"},
		{flow("batch/v1", "Job", "generateName: w-", template), "1 Job /w- spec.template.spec"},
		{flow("batch/v1beta1", "CronJob", "name: w", "spec: {jobTemplate: {spec: {template: {spec: {"+containers+"}}}}}"), "1 CronJob /w spec.jobTemplate.spec.template.spec"},
		{flow("apps/v1", "ReplicaSet", "name: w, ownerReferences: [{kind: X, name: x}, {kind: Deployment, name: d, controller: true}]", template), "1 ReplicaSet /w spec.template.spec of Deployment d"},
		{flow("v1", "Pod", "name: w, ownerReferences: [{kind: Node, name: d, controller: true}]", "spec: {"+containers+"}"), "1 Pod /w spec"},
		// Names alone do not make a kind.
		{flow("batch.volcano.sh/v1alpha1", "Job", "name: w", template), ""},
		{flow("v1", "Deployment", "name: w", template), ""},
		{flow("v1", "ConfigMap", "name: w", "data: {}"), ""},
		{flow("example.org/v1", "ThingList", "name: w", "items: 5"), ""},
		{"{replicas: 3, image: {tag: x}}", ""}, // a chart's values
	} {
		s, err := manifest.Parse([]byte(c.object))
		if err != nil || len(s.Problems) > 0 {
			t.Errorf("%s: %v %v", c.object, err, s.Problems)
			continue
		}
		if got := strings.Join(described(s), "; "); got != c.want || (c.want == "") != (s.Other == 1) {
			t.Errorf("%s: %q and %d others, want %q", c.object, got, s.Other, c.want)
		}
	}
}

func TestLists(t *testing.T) {
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"spec":{"containers":[{"name":"a"}]}}`
	input := `---
apiVersion: v1
kind: List
items:
- ` + fmt.Sprintf(pod, "a") + `
- {apiVersion: v1, kind: Secret}
- {apiVersion: v1, kind: List, items: [` + fmt.Sprintf(pod, "b") + `]}
- {apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: 1}}
---
apiVersion: apps/v1
kind: DeploymentList
items:
- {metadata: {name: c}, spec: {template: {spec: {` + containers + `}}}}
---
apiVersion: v1
kind: ConfigMapList
items: [{metadata: {name: x}}]
`
	s, err := manifest.Parse([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 Pod /a spec", "1 Pod /b spec", "2 Deployment /c spec.template.spec"}, described(s)); diff != "" || s.Other != 2 || s.Documents != 3 {
		t.Errorf("%d others, %d documents (-want +got):\n%s", s.Other, s.Documents, diff)
	}
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].String(), "document 1: items[3]: Pod: ") {
		t.Errorf("problems %v", s.Problems)
	}
	deep := strings.Repeat(`{"kind":"List","apiVersion":"v1","items":[`, 9) + fmt.Sprintf(pod, "a") + strings.Repeat("]}", 9)
	if s, err := manifest.Parse([]byte(deep)); err != nil || len(s.Problems) != 1 {
		t.Errorf("lists in lists: %v %v", s.Problems, err)
	}
}

// A document that can not be read is named, and hides no other.
func TestProblems(t *testing.T) {
	good := flow("v1", "Pod", "name: good", "spec: {"+containers+"}")
	for _, c := range []struct{ bad, want string }{
		{"a: {{ .Values.a }}", "helm template"},
		{"a: [", "document 2: line 3: YAML: "},
		{"- a list", "document 2: no Kubernetes object: "},
		{"a scalar", "document 2: no Kubernetes object: "},
		{"{kind: [Pod]}", "document 2: no Kubernetes object: "},
		{flow("v1", "Pod", "name: p", "spec: {containers: {}}"), "document 2: Pod: spec.containers: want []v1.Container, not object"},
		{flow("v1", "Pod", "name: p", "spec: {hostNetwork: maybe, "+containers+"}"), "document 2: Pod: spec.hostNetwork: want bool, not string"},
		{flow("v1", "Pod", "namespace: p", "spec: {"+containers+"}"), "document 2: Pod: metadata.name is missing"},
		{flow("v1", "Pod", "name: "+strings.Repeat("p", 254), "spec: {"+containers+"}"), "document 2: Pod: metadata.name: longer"},
		{flow("v1", "Pod", `name: "p\n"`, "spec: {"+containers+"}"), "document 2: Pod: metadata.name: "},
		{flow("apps/v1", "Deployment", "name: d", "spec: {}"), `document 2: Deployment: "d": spec.template.spec.containers is missing`},
		{"{kind: Pod, metadata: {name: p}, spec: {" + containers + "}}", "document 2: Pod: apiVersion is missing"},
	} {
		s, err := manifest.Parse([]byte(good + "\n---\n" + c.bad + "\n---\n" + good + "\n"))
		if err != nil {
			t.Errorf("%s: %v", c.bad, err)
			continue
		}
		if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].String(), c.want) {
			t.Errorf("%s: %v, want %q", c.bad, s.Problems, c.want)
		}
		if len(s.Objects) != 2 {
			t.Errorf("%s: hides %d others", c.bad, 2-len(s.Objects))
		}
	}
	if _, err := manifest.Parse(make([]byte, manifest.MaxSize+1)); err == nil {
		t.Error("an input of any size is read")
	}
}

// YAML is read as kubectl reads it, fields as the server reads them.
func TestAsTheServerReads(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       bool
	}{
		{"true of YAML 1.1", "hostNetwork: yes", true},
		{"on, too", "hostNetwork: on", true},
		{"the last of two counts", "hostNetwork: false, hostNetwork: true", true},
		{"another case is another field", "hostnetwork: true", false},
		{"an alias", "x: &x true, hostNetwork: *x", true},
	} {
		s, err := manifest.Parse([]byte(flow("v1", "Pod", "name: p", "spec: {"+c.spec+", "+containers+"}")))
		if err != nil || len(s.Objects) != 1 {
			t.Errorf("%s: %v %v", c.name, s.Problems, err)
			continue
		}
		if got := s.Objects[0].Spec.HostNetwork; got != c.want {
			t.Errorf("%s: hostNetwork %v", c.name, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := manifest.Parse([]byte(flow("apps/v1", "Deployment", "name: d", `spec: {template: {spec: {
		hostNetwork: true, volumes: [{name: none}, {name: path, hostPath: {path: /}}],
		containers: [{name: a, ports: [{containerPort: 80}, {containerPort: 81, hostPort: 8081}]}],
		initContainers: [{name: i, ports: [{containerPort: 82}]}]}}}`)))
	if err != nil || len(s.Objects) != 1 {
		t.Fatal(err, s.Problems)
	}
	spec := s.Objects[0].Spec
	if spec.Volumes[0].EmptyDir == nil || spec.Volumes[1].EmptyDir != nil {
		t.Errorf("volumes %+v", spec.Volumes)
	}
	ports := []int32{spec.Containers[0].Ports[0].HostPort, spec.Containers[0].Ports[1].HostPort, spec.InitContainers[0].Ports[0].HostPort}
	if !slices.Equal(ports, []int32{80, 8081, 82}) {
		t.Errorf("host ports %v", ports)
	}
	s, err = manifest.Parse([]byte(flow("v1", "Pod", "name: p", "spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}")))
	if err != nil || s.Objects[0].Spec.Containers[0].Ports[0].HostPort != 0 {
		t.Errorf("without hostNetwork: %v %v", s.Objects, err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pod := flow("v1", "Pod", "name: p", "spec: {"+containers+"}")
	for _, name := range []string{"a.yaml", "b/c.YML", "b/d.json", "b/e.txt", ".hidden/f.yaml", "..data/g.yaml"} {
		write(name, pod)
	}
	if err := os.Symlink(filepath.Join("..data", "g.yaml"), filepath.Join(dir, "g.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "broken.yaml")); err != nil {
		t.Fatal(err)
	}
	var seen []string
	read := func(paths ...string) error {
		seen = nil
		return manifest.Read(t.Context(), paths, strings.NewReader(pod), func(file string, s manifest.Set, err error) error {
			name := strings.TrimPrefix(file, dir+"/")
			switch {
			case errors.Is(err, fs.ErrNotExist):
				name += " is missing"
			case err != nil:
				return err
			default:
				name += fmt.Sprintf(" %d", len(s.Objects))
			}
			seen = append(seen, name)
			return nil
		})
	}
	if err := read(dir, "-", filepath.Join(dir, "b/e.txt"), filepath.Join(dir, "none")); err != nil {
		t.Fatal(err)
	}
	want := []string{"a.yaml 1", "b/c.YML 1", "b/d.json 1", "broken.yaml is missing", "g.yaml 1", "- 1", "b/e.txt 1", "none is missing"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	stop := errors.New("stop")
	if err := manifest.Read(t.Context(), []string{dir}, nil, func(string, manifest.Set, error) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := manifest.Read(ctx, []string{dir}, nil, func(string, manifest.Set, error) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Whatever comes in: no panic, every document accounted for, and names that fit a subject.
func FuzzParse(f *testing.F) {
	pod := flow("v1", "Pod", "name: p", "spec: {"+containers+"}")
	for _, s := range []string{
		pod, pod + "\n---\n" + pod, "a: &a [*a]\n", "{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{}]}", "kind: PodList\napiVersion: v1\nitems: [null, 1, {}]",
		"apiVersion: v1\nkind: Pod\nmetadata: null\nspec: {ephemeralContainers: [{}], volumes: [{}], hostNetwork: true, containers: [{ports: [{}]}]}",
		"%YAML 1.1\n---\n!!binary x\n", "? {a: b}\n: c\n", "<<: [{a: 1}]\n", "1: 2\n", "~: ~\n", "\xff\xfe", "kind: Job\napiVersion: batch/v1\nmetadata: {name: \"\\u0000\"}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := manifest.Parse(in)
		if err != nil {
			return
		}
		if s.Documents > 0 && len(s.Objects)+s.Other+len(s.Problems) == 0 && !strings.Contains(string(in), "List") {
			t.Fatalf("%d documents, and nothing said of them", s.Documents)
		}
		for _, o := range s.Objects {
			if o.Name == "" || len(o.Name) > 253 || len(o.Namespace) > 63 || o.Spec == nil || len(o.Spec.Containers) == 0 {
				t.Fatalf("%+v", o)
			}
		}
	})
}
