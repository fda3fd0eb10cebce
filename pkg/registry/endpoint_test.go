package registry_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
)

// A registry that is called one thing by those who push and is reached under another: only the second is
// connected to, and the policy holds for it.
func TestEndpoint(t *testing.T) {
	asked := make(chan string, 10)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + r.URL.Path
		w.Header().Set("Content-Type", manifestType)
		if strings.HasSuffix(r.URL.Path, "/manifests/v1") {
			_, _ = w.Write([]byte(`{"schemaVersion":2}`)) // a client that left notices
		}
	}))
	c := newClient(t, registry.Config{Hosts: map[string]registry.Host{"localhost:1": {Plain: true, Endpoint: host}}}, registry.Options{})
	d, err := c.Resolve(t.Context(), "localhost:1", repo, "v1")
	if err != nil || d.MediaType != manifestType {
		t.Fatalf("resolved %+v, %v", d, err)
	}
	if got := <-asked; got != host+"/v2/" {
		t.Errorf("asked %s first", got)
	}
	// The other name is no reference that events may use.
	_, err = c.Resolve(t.Context(), host, repo, "v1")
	wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
}

func TestEndpointIsValidated(t *testing.T) {
	for name, h := range map[string]registry.Host{
		"registry.example": {Endpoint: "http://registry.internal:5000"},
		"*.example.com":    {Endpoint: "registry.internal:5000"},
	} {
		err := registry.Config{Hosts: map[string]registry.Host{name: h}}.Validate()
		if err == nil || !strings.Contains(err.Error(), "hosts["+name+"].endpoint: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
