package door_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

const (
	teamA, teamANext = "team-a-secret-0123456789", "team-a-secret-next-012345"
	teamB            = "team-b-secret-0123456789"
	sender           = "registry-secret-01234567"
	auditor          = "auditor-secret-012345678"
	everything       = "everything-secret-012345"
)

// tokenFile writes secrets and answers the file's path.
func tokenFile(t *testing.T, secrets ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, strings.Join(secrets, "\n")+"\n")
	return file
}

func write(t *testing.T, file, s string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}

// teams are two teams on one registry, the registry itself, and somebody who reads everything.
func teams(t *testing.T) []door.Token {
	a, b := []string{"registry.example/team-a", "mirror.example"}, []string{"registry.example/team-b"}
	return []door.Token{
		{Name: "team-a", File: tokenFile(t, "# rotating", teamA, "", teamANext), Submit: door.Submit{Scans: a, Manifests: []string{"a-*"}}, Read: a},
		{Name: "team-b", File: tokenFile(t, teamB), Submit: door.Submit{Scans: b, Manifests: []string{"b"}}, Read: b},
		{Name: "registry", File: tokenFile(t, sender), Submit: door.Submit{Events: []string{"registry.example"}}},
		{Name: "auditor", File: tokenFile(t, auditor), Submit: door.Submit{Manifests: []string{"*"}}, Read: []string{"*"}},
	}
}

func openTokens(t *testing.T, tokens []door.Token, plain []string, log *slog.Logger, now func() time.Time) *door.Tokens {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opened, err := door.OpenTokens(tokens, plain, log, now)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func TestWhatATokenMaySubmit(t *testing.T) {
	f := open(t, door.Config{Tokens: openTokens(t, teams(t), []string{tokenFile(t, everything)}, nil, nil)}, nil)
	for name, tc := range map[string]struct {
		secret, reference string
		status            int
	}{
		"its own":                    {teamA, "registry.example/team-a/api:1", 202},
		"its own, the next secret":   {teamANext, "registry.example/team-a/api:1", 202},
		"the prefix itself":          {teamA, "registry.example/team-a:1", 202},
		"a whole registry":           {teamA, "mirror.example/x/y:1", 202},
		"another team's":             {teamA, "registry.example/team-b/api:1", 403},
		"a name that begins like it": {teamA, "registry.example/team-aa/api:1", 403},
		"above it":                   {teamA, "registry.example/api:1", 403},
		"the same on another host":   {teamA, "evil.example/team-a/api:1", 403},
		"another port":               {teamA, "registry.example:5000/team-a/api:1", 403},
		"no scans":                   {sender, "registry.example/team-a/api:1", 403},
		"reading is not submitting":  {auditor, "registry.example/team-a/api:1", 403},
		"plain file":                 {everything, "registry.example/team-b/api:1", 202},
	} {
		resp, body := f.do(t, "POST", "/v1/scans", `{"reference":"`+tc.reference+`"}`, "Authorization", "Bearer "+tc.secret)
		if resp.StatusCode != tc.status {
			t.Errorf("%s: status %d %s, want %d", name, resp.StatusCode, body, tc.status)
		}
		if tc.status == 403 {
			wantProblem(t, resp, body, 403, reason.Forbidden, "reference: token ")
		}
	}
	for name, tc := range map[string]struct {
		secret string
		status int
	}{"registry": {sender, 202}, "plain file": {everything, 202}, "team": {teamA, 403}, "auditor": {auditor, 403}} {
		resp, body := f.do(t, "POST", "/v1/events/distribution", `{"events":[]}`, "Authorization", "Bearer "+tc.secret)
		if resp.StatusCode != tc.status {
			t.Errorf("notification by %s: status %d, want %d", name, resp.StatusCode, tc.status)
		}
		if tc.status == 403 {
			wantProblem(t, resp, body, 403, reason.Forbidden, "notifications")
		}
	}
}

// A notification about what the token does not cover costs the others of it nothing.
func TestForeignEventsAreDropped(t *testing.T) {
	f := open(t, door.Config{Tokens: openTokens(t, teams(t), nil, nil, nil)}, nil)
	element := func(host, repository string) string {
		return fmt.Sprintf(`{"id":"%s","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","repository":%q,"tag":"1"},"request":{"host":%q}}`, host+repository, repository, host)
	}
	resp, body := f.do(t, "POST", "/v1/events/distribution",
		`{"events":[`+element("registry.example", "a")+`,`+element("other.example", "a")+`,`+element("registry.example", "b/c")+`]}`,
		"Authorization", sender)
	var got struct {
		Accepted int
		Dropped  map[string]int
	}
	err := json.Unmarshal([]byte(body), &got)
	if err != nil || resp.StatusCode != http.StatusAccepted || got.Accepted != 2 || got.Dropped["forbidden"] != 1 {
		t.Errorf("answer %d %s (%v), want 2 accepted and 1 forbidden", resp.StatusCode, body, err)
	}
	for _, e := range f.bus.events {
		if e.Reference.Host != "registry.example" {
			t.Errorf("stored an event of %s", e.Reference)
		}
	}
}

// A report is read by those who hold the image, and to nobody else it exists: the answer about it is, to
// the last byte, the one about nothing.
func TestWhoMayReadAReport(t *testing.T) {
	f := open(t, door.Config{Tokens: openTokens(t, teams(t), []string{tokenFile(t, everything)}, nil, nil)}, nil)
	digest := func(c string) image.Digest { return image.Digest("sha256:" + strings.Repeat(c, 64)) }
	ref := func(repository string) image.Reference {
		return image.Reference{Host: "registry.example", Repository: repository, Tag: "1"}
	}
	put := func(d image.Digest, outcome report.Outcome, by image.Reference, sources ...string) {
		by.Digest = d
		f.bus.reports[d] = append(f.bus.reports[d], &report.Report{
			Image: image.Image{Reference: by, Index: digest("9"), Platform: image.Platform{OS: "linux", Architecture: "amd64"}}, Outcome: outcome,
		})
		for _, s := range sources {
			f.bus.sources[d] = append(f.bus.sources[d], image.Reference{Host: "registry.example", Repository: s})
		}
	}
	put(digest("a"), report.Clean, ref("team-a/api"), "team-a/api")
	put(digest("c"), report.Findings, ref("team-b/api"), "team-a/copy", "team-b/api") // both have it
	put(digest("d"), report.Failed, ref("team-a/evil"))                               // asked for, never seen
	put(digest("e"), report.Failed, ref("team-b/api"), "team-a/api", "team-b/api")

	for name, tc := range map[string]struct {
		secret string
		d      image.Digest
		want   string // the repository that the report names; "": there is none
	}{
		"own":                       {teamA, digest("a"), "team-a/api"},
		"foreign":                   {teamB, digest("a"), ""},
		"absent":                    {teamB, digest("f"), ""},
		"both, judged for oneself":  {teamB, digest("c"), "team-b/api"},
		"both, judged for another":  {teamA, digest("c"), "team-a/copy"},
		"never held":                {teamA, digest("d"), ""},
		"another's failure":         {teamA, digest("e"), ""},
		"one's own failure":         {teamB, digest("e"), "team-b/api"},
		"who may not read":          {sender, digest("a"), ""},
		"who reads all":             {auditor, digest("a"), "team-a/api"},
		"who reads all, never held": {auditor, digest("d"), "team-a/evil"},
		"plain file":                {everything, digest("c"), "team-b/api"},
	} {
		resp, body := f.do(t, "GET", "/v1/reports/"+string(tc.d), "", "Authorization", "Bearer "+tc.secret, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		if tc.want == "" {
			wantProblem(t, resp, body, 404, reason.NotFound, "report")
			_, absent := f.do(t, "GET", "/v1/reports/"+string(digest("f")), "", "Authorization", "Bearer "+tc.secret, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
			if body != absent {
				t.Errorf("%s: %q differs from the answer about nothing, %q", name, body, absent)
			}
			continue
		}
		rep, err := wire.ReportFromJSON([]byte(body))
		if err != nil || resp.StatusCode != http.StatusOK || rep.Image.Repository != tc.want {
			t.Errorf("%s: answer %d %s (%v), want the report for %s", name, resp.StatusCode, body, err, tc.want)
			continue
		}
		if foreign := tc.want == "team-a/copy"; foreign && (strings.Contains(body, "team-b") || strings.Contains(body, digest("9").Hex())) {
			t.Errorf("%s: it tells of the other: %s", name, body)
		}
	}
}

// A scan is followed by who asked for it and by who may read its repository.
func TestWhoMayFollowAScan(t *testing.T) {
	tokens := teams(t)
	tokens = append(tokens, door.Token{Name: "ci", File: tokenFile(t, "ci-secret-0123456789"), Submit: door.Submit{Scans: []string{"registry.example"}}})
	f := open(t, door.Config{Tokens: openTokens(t, tokens, []string{tokenFile(t, everything)}, nil, nil)}, nil)
	_, body := f.do(t, "POST", "/v1/scans", `{"reference":"registry.example/team-a/api:1"}`, "Authorization", "Bearer ci-secret-0123456789")
	accepted, err := wire.ScanAcceptedFromJSON([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for _, told := range []bool{false, true} {
		if told {
			f.bus.fates[fate.RequestKey(accepted.ID)] = fate.Fate{Request: accepted.ID, Reference: image.Reference{Host: "registry.example", Repository: "team-a/api", Tag: "1"}, Stage: fate.Decided}
		}
		for secret, status := range map[string]int{"ci-secret-0123456789": 200, teamA: 200, auditor: 200, everything: 200, teamB: 404, sender: 404} {
			resp, body := f.do(t, "GET", accepted.StatusURL, "", "Authorization", "Bearer "+secret)
			if resp.StatusCode != status {
				t.Errorf("told %v: %s is answered %d %s, want %d", told, secret, resp.StatusCode, body, status)
			}
			if status == 404 {
				wantProblem(t, resp, body, 404, reason.NotFound, "no such scan request")
			}
		}
	}
	// The same key and reference by another is another request: its id would tell him of the first.
	ids := map[string]bool{}
	for _, secret := range []string{"ci-secret-0123456789", teamA, teamANext} {
		_, body := f.do(t, "POST", "/v1/scans", `{"reference":"registry.example/team-a/api:1"}`, "Authorization", "Bearer "+secret, "Idempotency-Key", "k")
		ids[body] = true
	}
	if len(ids) != 2 {
		t.Errorf("%d requests of two callers, want 2", len(ids))
	}
}

func TestTokenFilesAreReadAgain(t *testing.T) {
	clock := time.Now()
	var log strings.Builder
	file := tokenFile(t, teamA)
	tokens := openTokens(t, []door.Token{{Name: "team-a", File: file, Submit: door.Submit{Scans: []string{"*"}}}}, nil,
		slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return clock })
	known := func(secret string) bool {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", secret)
		_, ok := tokens.Caller(r)
		return ok
	}
	later := func() { clock = clock.Add(time.Minute) }
	if !known(teamA) || known(teamB) {
		t.Fatal("the first secret is not the only one")
	}
	write(t, file, teamA+"\n"+teamB+"\n# both\n")
	if known(teamB) {
		t.Error("a file is looked at for each request")
	}
	later()
	if !known(teamA) || !known(teamB) {
		t.Error("the second secret is not known beside the first")
	}
	write(t, file, teamB+"\n")
	later()
	if known(teamA) || !known(teamB) {
		t.Error("the first secret is still known, or the second is not")
	}
	for _, bad := range []string{"", "short", "one-secret-0123456789\ntwo-secret-0123456789\nthree-secret-0123456789\n"} {
		write(t, file, bad)
		later()
		if !known(teamB) {
			t.Errorf("%q locks out who was in", bad)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	later()
	if !known(teamB) {
		t.Error("a file that is away locks out who was in")
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 4 {
		t.Errorf("%d complaints, want 4:\n%s", n, log.String())
	}
	if strings.Contains(log.String(), "secret-0") {
		t.Errorf("the log shows a secret:\n%s", log.String())
	}
}

func TestRequestsAreAudited(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewJSONHandler(&out, nil))
	bus := &fakeBus{fates: map[string]fate.Fate{}}
	d, err := door.New(door.Config{Tokens: openTokens(t, teams(t), nil, log, nil)}, door.Deps{Bus: bus, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, d, bus)
	f.do(t, "POST", "/v1/scans", `{"reference":"registry.example/team-b/api:1"}`, "Authorization", "Bearer "+teamA)
	f.do(t, "POST", "/v1/events/distribution", notification, "Authorization", sender)
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		if m["msg"] == "request" {
			lines = append(lines, m)
		}
	}
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	if l := lines[0]; l["token"] != "team-a" || l["status"] != 403.0 || l["reference"] != "registry.example/team-b/api:1" || l["route"] != "POST /v1/scans" {
		t.Errorf("line %v", l)
	}
	if l := lines[1]; l["token"] != "registry" || l["status"] != 202.0 || l["accepted"] == nil {
		t.Errorf("line %v", l)
	}
	if strings.Contains(out.String(), "secret-0") {
		t.Errorf("the log shows a secret:\n%s", out.String())
	}
}

func TestTokensAreChecked(t *testing.T) {
	good := door.Token{Name: "a", File: "f", Read: []string{"*"}}
	with := func(change func(*door.Token)) []door.Token {
		t := good
		change(&t)
		return []door.Token{t}
	}
	for name, tc := range map[string]struct {
		tokens []door.Token
		want   string // "" is fine
	}{
		"good":              {[]door.Token{good}, ""},
		"no name":           {with(func(t *door.Token) { t.Name = "" }), "tokens[0].name: "},
		"name with a space": {with(func(t *door.Token) { t.Name = "a b" }), "tokens[0].name: "},
		"twice":             {[]door.Token{good, good}, "tokens[1].name: "},
		"no file":           {with(func(t *door.Token) { t.File = "" }), "tokens[0].file: "},
		"opens nothing":     {with(func(t *door.Token) { t.Read = nil }), "tokens[0]: "},
		"scheme":            {with(func(t *door.Token) { t.Read = []string{"*", "https://x"} }), "tokens[0].read[1]: "},
		"star below":        {with(func(t *door.Token) { t.Submit.Scans = []string{"x.example/a/*"} }), "tokens[0].submit.scans[0]: "},
		"slash at the end":  {with(func(t *door.Token) { t.Submit.Events = []string{"x.example/"} }), "tokens[0].submit.events[0]: "},
		"star in the host":  {with(func(t *door.Token) { t.Submit.Events = []string{"*.example"} }), "tokens[0].submit.events[0]: "},
		"cluster":           {with(func(t *door.Token) { t.Submit.Manifests = []string{"a/b"} }), "tokens[0].submit.manifests[0]: "},
		"cluster brackets":  {with(func(t *door.Token) { t.Submit.Manifests = []string{"[a-z]"} }), "tokens[0].submit.manifests[0]: "},
		"too many":          {with(func(t *door.Token) { t.Read = make([]string, 1001) }), "tokens[0].read: "},
	} {
		err := door.ValidateTokens(tc.tokens)
		if (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	one, two := tokenFile(t, teamA), tokenFile(t, teamB, teamA)
	_, err := door.OpenTokens([]door.Token{{Name: "a", File: one}, {Name: "b", File: two}}, nil, slog.New(slog.DiscardHandler), nil)
	if err == nil || strings.Contains(err.Error(), teamA) {
		t.Errorf("one secret in two files: %v", err)
	}
	_, err = door.OpenTokens([]door.Token{{Name: "a", File: "/nonexistent"}}, nil, slog.New(slog.DiscardHandler), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "tokens[0].file: ") {
		t.Errorf("no file: %v", err)
	}
}
