package door_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

const twoManifests = "apiVersion: v1\nkind: Pod\n---\nkind: ConfigMap\n"

func TestPostManifests(t *testing.T) {
	f := open(t, door.Config{}, nil)
	post := func(path, body string, headers ...string) (*http.Response, string) {
		t.Helper()
		return f.do(t, http.MethodPost, path, body, append([]string{"Content-Type", "application/yaml"}, headers...)...)
	}
	r, body := post("/v1/manifests?cluster=eu.prod_1&namespace=team-a", twoManifests)
	if r.StatusCode != http.StatusAccepted || !strings.Contains(body, `"documents":2`) || !strings.Contains(body, `"id":"1-`) {
		t.Fatalf("%d %s", r.StatusCode, body)
	}
	e := f.bus.events[0]
	want := event.Manifests{Cluster: "eu.prod_1", Namespace: "team-a", Body: []byte(twoManifests)}
	if diff := cmp.Diff(want, e.Manifests); diff != "" || e.Kind != event.KindManifest || e.Action != event.Request {
		t.Errorf("stored %+v (-want +got):\n%s", e, diff)
	}
	// Its id names no scan request.
	_, id, _ := strings.Cut(body, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	if r, body := f.do(t, http.MethodGet, "/v1/scans/"+id, ""); r.StatusCode != http.StatusNotFound {
		t.Errorf("as a scan request: %d %s", r.StatusCode, body)
	}
	// Asking twice is asking for two audits, unless the caller says otherwise.
	post("/v1/manifests?cluster=c", twoManifests)
	post("/v1/manifests?cluster=c", twoManifests)
	if len(f.bus.events) != 3 || f.bus.events[1].Manifests.Namespace != "default" {
		t.Errorf("%d events, namespace %q", len(f.bus.events), f.bus.events[1].Manifests.Namespace)
	}
	post("/v1/manifests?cluster=c", twoManifests, "Idempotency-Key", "k")
	post("/v1/manifests?cluster=c", twoManifests, "Idempotency-Key", "k")
	post("/v1/manifests?cluster=d", twoManifests, "Idempotency-Key", "k")
	if len(f.bus.events) != 5 {
		t.Errorf("%d events, want 5: one for each key and what is posted", len(f.bus.events))
	}
	if r, body := post("/v1/manifests?cluster=c", `{"kind":"Pod"}`, "Content-Type", "application/json"); r.StatusCode != http.StatusAccepted {
		t.Errorf("JSON: %d %s", r.StatusCode, body)
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	f := open(t, door.Config{}, nil)
	for _, c := range []struct {
		name, query, contentType, body string
		status                         int
		code                           reason.Code
		want                           string
	}{
		{"no cluster", "", "application/yaml", twoManifests, 400, reason.BadRequest, "cluster: is required"},
		{"bad cluster", "?cluster=a%20b", "application/yaml", twoManifests, 400, reason.BadRequest, "cluster: "},
		{"cluster of two lines", "?cluster=a%0Ab", "application/yaml", twoManifests, 400, reason.BadRequest, "cluster: "},
		{"long cluster", "?cluster=" + strings.Repeat("a", 254), "application/yaml", twoManifests, 400, reason.BadRequest, "cluster: longer"},
		{"two clusters", "?cluster=a&cluster=b", "application/yaml", twoManifests, 400, reason.BadRequest, "once each"},
		{"misspelt", "?cluster=a&namspace=b", "application/yaml", twoManifests, 400, reason.BadRequest, "namspace"},
		{"bad namespace", "?cluster=a&namespace=B.c", "application/yaml", twoManifests, 400, reason.BadRequest, "namespace: "},
		{"curl's own type", "?cluster=a", "application/x-www-form-urlencoded", twoManifests, 415, reason.BadRequest, "application/yaml"},
		{"packed", "?cluster=a", "application/yaml; q", twoManifests, 415, reason.BadRequest, "content-type: "},
		{"no YAML", "?cluster=a", "application/yaml", twoManifests + "---\na: [\n", 400, reason.BadRequest, "body: document 3: line "},
		{"no JSON", "?cluster=a", "application/json", `{"a":1}{"b":`, 400, reason.BadRequest, "body: document 2: line 1: JSON: "},
		{"a bomb", "?cluster=a", "application/yaml", "a: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.Repeat("*a,", 100) + "]", 400, reason.BadRequest, "aliases"},
		{"many values", "?cluster=a", "application/yaml", strings.Repeat(`{"a":["`+strings.Repeat("a\",\"", 1000)+`"]}`, 401), 413, reason.OverBound, "values"},
		{"nothing", "?cluster=a", "application/yaml", "# nothing\n", 400, reason.BadRequest, "no document"},
		{"too large", "?cluster=a", "application/yaml", strings.Repeat("# x\n", 1<<20) + "a: 1", 413, reason.OverBound, "body: larger"},
		{"too many", "?cluster=a", "application/yaml", strings.Repeat("a: 1\n---\n", 10_001), 413, reason.OverBound, "documents"},
	} {
		r, body := f.do(t, http.MethodPost, "/v1/manifests"+c.query, c.body, "Content-Type", c.contentType)
		if r.StatusCode != c.status || !strings.Contains(body, `"code":"`+string(c.code)+`"`) || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d %s %q", c.name, r.StatusCode, body, c.status, c.code, c.want)
		}
	}
	if n := len(f.bus.events); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

func TestManifestsNeedTheirRight(t *testing.T) {
	secret := "secret-of-the-cluster"
	tokens := []door.Token{{Name: "a", File: tokenFile(t, secret), Submit: door.Submit{Manifests: []string{"a-*"}}}}
	f := open(t, door.Config{Tokens: openTokens(t, tokens, nil, nil, nil)}, nil)
	for cluster, want := range map[string]int{"a-1": http.StatusAccepted, "b": http.StatusForbidden} {
		r, body := f.do(t, http.MethodPost, "/v1/manifests?cluster="+cluster, twoManifests, "Content-Type", "application/yaml", "Authorization", "Bearer "+secret)
		if r.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", cluster, r.StatusCode, body, want)
		}
	}
	if len(f.bus.events) != 1 || f.bus.events[0].Actor != "a" {
		t.Errorf("stored %+v", f.bus.events)
	}
}
