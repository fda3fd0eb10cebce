package wire

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/reason"
)

func TestScanRequestFromJSON(t *testing.T) {
	got, err := ScanRequestFromJSON([]byte(`{"reference": "registry.example/a:1", "platforms": ["linux/amd64", "linux/arm64/v8"]}`))
	want := ScanRequest{Reference: "registry.example/a:1", Platforms: []string{"linux/amd64", "linux/arm64/v8"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("err %v, differs (-want +got):\n%s", err, diff)
	}
}

func TestScanRequestFromJSONRefuses(t *testing.T) {
	for body, fragment := range map[string]string{
		``:                           "unexpected",
		`[]`:                         "unexpected token [",
		`{}`:                         "reference: is required",
		`{"reference": ""}`:          "reference: is required",
		`{"ref": "a"}`:               `unknown field "ref"`,
		`{"reference": 7}`:           "reference",
		`{"reference": "a"} {}`:      "unexpected token {",
		"{\"reference\": \"a\xff\"}": "UTF-8",
		`{"reference": "a", "platforms": "linux/amd64"}`: "unexpected",
		`{"reference": "a", "reference": "b"}`:           "duplicate field",
	} {
		t.Run(body, func(t *testing.T) {
			got, err := ScanRequestFromJSON([]byte(body))
			if err == nil {
				t.Fatalf("got %+v", got)
			}
			wantRefusal(t, err, reason.BadRequest, fragment)
			if strings.Contains(err.Error(), "proto:") {
				t.Errorf("error %q speaks of protobuf", err)
			}
		})
	}
}

// A client must read the answers of a newer server.
func TestAnswersOfANewerServer(t *testing.T) {
	a, err := ScanAcceptedFromJSON([]byte(`{"id": "12-ab", "eta": "soon"}`))
	if err != nil || a.ID != "12-ab" {
		t.Errorf("ScanAccepted: %+v, %v", a, err)
	}
	p, err := ProblemFromJSON([]byte(`{"code": "unauthorized", "message": "no token", "hint": {}}`))
	if err != nil || p.Code != reason.Unauthorized || p.Message != "no token" {
		t.Errorf("Problem: %+v, %v", p, err)
	}
	f, err := FateFromJSON([]byte(`{"request": "12-ab", "stage": "STAGE_DECIDED", "mood": 1}`))
	if err != nil || f.Request != "12-ab" {
		t.Errorf("Fate: %+v, %v", f, err)
	}
	if _, err := ReportFromJSON([]byte(`{"image": {"reference": {"digest": "sha256:no"}}}`)); err == nil {
		t.Error("a report with a bad digest was read")
	}
}

// A script finds each number and list, zero and empty ones too.
func TestJSONHasEmptyFields(t *testing.T) {
	b, err := FateJSON(mustDecode(t, FateFromJSON, `{"request": "1-a"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"images":[]`, `"attempts":0`, `"stage":"STAGE_UNSPECIFIED"`, `"reason":""`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}

func mustDecode[V any](t *testing.T, decode func([]byte) (V, error), body string) V {
	t.Helper()
	v, err := decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
