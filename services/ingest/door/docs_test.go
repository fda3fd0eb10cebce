package door_test

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

// The page lists every status and code that callers meet, and no other.
func TestThePageListsWhatIsAnswered(t *testing.T) {
	page, err := os.ReadFile("../../../docs/ingest.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		listed[m[1]+" "+m[2]] = true
	}

	answered := map[string]bool{}
	for _, tc := range []struct {
		cfg                door.Config
		err                error // of the bus
		method, path, body string
		headers            []string
	}{
		{method: "POST", path: "/v1/scans", body: "{"},
		{method: "POST", path: "/v1/scans", body: `{"reference":"x"}`, cfg: door.Config{Tokens: openTokens(t, teams(t), nil, nil, nil)}},
		{method: "POST", path: "/v1/scans", body: `{"reference":"x"}`, cfg: door.Config{Tokens: openTokens(t, teams(t), nil, nil, nil)}, headers: []string{"Authorization", teamA}},
		{method: "GET", path: "/v1/scans/x", cfg: door.Config{LocalOnly: true}, headers: []string{"Host", "evil.example"}},
		{method: "GET", path: "/"},
		{method: "GET", path: "/v1/scans/1-0123456789abcdef"},
		{method: "GET", path: "/v1/reports/sha256:" + strings.Repeat("a", 64)},
		{method: "PUT", path: "/v1/scans"},
		{method: "POST", path: "/v1/scans", body: strings.Repeat("x", 65<<10)},
		{method: "POST", path: "/v1/manifests?cluster=x", body: strings.Repeat("x", 5<<20)},
		{method: "POST", path: "/v1/events/distribution", headers: []string{"Content-Type", "text/plain"}},
		{method: "POST", path: "/v1/scans", body: `{"reference":"x"}`, err: reason.Retryf(reason.BusUnavailable, "away")},
	} {
		f := open(t, tc.cfg, nil)
		f.bus.err = tc.err
		resp, body := f.do(t, tc.method, tc.path, tc.body, tc.headers...)
		note(t, answered, resp.StatusCode, body)
	}
	d, err := door.New(door.Config{}, door.Deps{Bus: panicky{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/reports/sha256:"+strings.Repeat("a", 64), nil))
	note(t, answered, w.Code, w.Body.String())

	if l, a := slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(answered)); !slices.Equal(l, a) {
		t.Errorf("docs/ingest.md lists\n%s\ncallers are answered\n%s", strings.Join(l, "\n"), strings.Join(a, "\n"))
	}
}

func note(t *testing.T, answered map[string]bool, status int, body string) {
	t.Helper()
	p, err := wire.ProblemFromJSON([]byte(body))
	if err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	answered[strconv.Itoa(status)+" "+string(p.Code)] = true
}
