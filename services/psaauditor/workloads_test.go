package psaauditor

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
)

func object(kind, name string, owner *manifest.Owner) manifest.Object {
	return manifest.Object{Kind: kind, Name: name, Owner: owner}
}

// What `kubectl get all` prints is told of by the names that a person would use.
func TestWorkloads(t *testing.T) {
	deployment, replicas := &manifest.Owner{Kind: "Deployment", Name: "api"}, &manifest.Owner{Kind: "ReplicaSet", Name: "api-1"}
	loop := func(name, owner string) manifest.Object {
		return object("ReplicaSet", name, &manifest.Owner{Kind: "ReplicaSet", Name: owner})
	}
	for _, c := range []struct {
		name    string
		objects []manifest.Object
		want    []string
	}{
		{"each its own", []manifest.Object{object("Pod", "b", nil), object("Pod", "a", nil)}, []string{"default/Pod/a: Pod a", "default/Pod/b: Pod b"}},
		{"the owner speaks for what it made", []manifest.Object{object("Pod", "p", replicas), object("ReplicaSet", "api-1", deployment), object("Deployment", "api", nil)},
			[]string{"default/Deployment/api: Deployment api"}},
		{"without it, what it made does", []manifest.Object{object("Pod", "p", replicas), object("Pod", "q", replicas), object("ReplicaSet", "api-1", deployment)},
			[]string{"default/Deployment/api: Pod p, Pod q, ReplicaSet api-1"}},
		{"an owner of a foreign kind", []manifest.Object{object("Pod", "p", &manifest.Owner{Kind: "Rollout", Name: "r"})}, []string{"default/Rollout/r: Pod p"}},
		{"a namespace of its own", []manifest.Object{{Kind: "Pod", Name: "p", Namespace: "x"}}, []string{"x/Pod/p: Pod p"}},
		{"owners in a circle", []manifest.Object{loop("a", "b"), loop("b", "a")}, []string{"default/ReplicaSet/a: ReplicaSet a", "default/ReplicaSet/b: ReplicaSet b"}},
	} {
		var got []string
		for _, w := range workloads(manifest.Set{Objects: c.objects}, event.Manifests{Cluster: "c", Namespace: "default"}) {
			line := fmt.Sprintf("%s/%s/%s:", w.asset.Workload.Namespace, w.asset.Workload.Kind, w.asset.Workload.Name)
			for i, o := range w.objects {
				if i > 0 {
					line += ","
				}
				line += " " + o.Kind + " " + o.Name
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
