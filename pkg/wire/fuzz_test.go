package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pratique-sec/pratique/pkg/reason"
)

func FuzzDecodeEvent(f *testing.F)       { fuzz(f, "Event") }
func FuzzDecodeImageJob(f *testing.F)    { fuzz(f, "ImageJob") }
func FuzzDecodeLayerJob(f *testing.F)    { fuzz(f, "LayerJob") }
func FuzzDecodeMatchJob(f *testing.F)    { fuzz(f, "MatchJob") }
func FuzzDecodeLayerNotice(f *testing.F) { fuzz(f, "LayerNotice") }
func FuzzDecodeFacts(f *testing.F)       { fuzz(f, "Facts") }
func FuzzDecodeRecord(f *testing.F)      { fuzz(f, "Record") }
func FuzzDecodeVerdict(f *testing.F)     { fuzz(f, "Verdict") }
func FuzzDecodeReport(f *testing.F)      { fuzz(f, "Report") }
func FuzzDecodeState(f *testing.F)       { fuzz(f, "State") }
func FuzzDecodeDelta(f *testing.F)       { fuzz(f, "Delta") }
func FuzzDecodeScan(f *testing.F)        { fuzz(f, "Scan") }
func FuzzDecodeFate(f *testing.F)        { fuzz(f, "Fate") }
func FuzzDecodeTrack(f *testing.F)       { fuzz(f, "Track") }
func FuzzDecodeBreaker(f *testing.F)     { fuzz(f, "Breaker") }
func FuzzDecodePointer(f *testing.F)     { fuzz(f, "Pointer") }
func FuzzDecodeNotice(f *testing.F)      { fuzz(f, "Notice") }
func FuzzDecodeDeadLetter(f *testing.F)  { fuzz(f, "DeadLetter") }

func FuzzDecodeAlertPlace(f *testing.F)        { fuzz(f, "AlertPlace") }
func FuzzDecodeAlertGroup(f *testing.F)        { fuzz(f, "AlertGroup") }
func FuzzDecodeAlertMember(f *testing.F)       { fuzz(f, "AlertMember") }
func FuzzDecodeAlertDue(f *testing.F)          { fuzz(f, "AlertDue") }
func FuzzDecodeAlertNotification(f *testing.F) { fuzz(f, "AlertNotification") }
func FuzzDecodeAlertAttempt(f *testing.F)      { fuzz(f, "AlertAttempt") }

func FuzzReportFromJSON(f *testing.F)       { fuzzJSON(f, "Report") }
func FuzzFateFromJSON(f *testing.F)         { fuzzJSON(f, "Fate") }
func FuzzScanAcceptedFromJSON(f *testing.F) { fuzzJSON(f, "ScanAccepted") }
func FuzzProblemFromJSON(f *testing.F)      { fuzzJSON(f, "Problem") }

func FuzzScanRequestFromJSON(f *testing.F) {
	f.Add([]byte(`{"reference": "registry.example/a:1", "platforms": ["linux/amd64"]}`))
	f.Add([]byte(`{"ref": 1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ScanRequestFromJSON(b)
		if err != nil {
			wantRefusal(t, err, reason.BadRequest, "")
			return
		}
		settled(t, formNamed(t, "ScanRequest"), r)
	})
}

func fuzz(f *testing.F, name string) {
	of := formNamed(f, name)
	b, err := of.encode(filled(f, of))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(golden(f, name, ".binpb"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := of.decode(b)
		if err != nil {
			refused(t, err)
			return
		}
		settled(t, of, v)
	})
}

func fuzzJSON(f *testing.F, name string) {
	of := formNamed(f, name)
	b, err := of.json(filled(f, of))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := of.fromJSON(b)
		if err != nil {
			refused(t, err)
			return
		}
		settled(t, of, v)
	})
}

func refused(t *testing.T, err error) {
	t.Helper()
	var r *reason.Error
	if !errors.As(err, &r) || r.Kind != reason.Refuse || r.Code != reason.Malformed {
		t.Fatalf("error is %v, want a refusal as malformed", err)
	}
}

// settled fails when a value that was decoded changes on another way out and in. Values are compared
// by their bytes, since a score may be NaN.
func settled(t *testing.T, of form, v any) {
	t.Helper()
	want, err := of.encode(v)
	if err != nil {
		t.Fatalf("what was decoded can not be encoded: %v", err)
	}
	again, err := of.decode(want)
	if err != nil {
		t.Fatalf("what was encoded can not be decoded: %v", err)
	}
	line, err := of.json(v)
	if err != nil {
		t.Fatalf("what was decoded has no JSON: %v", err)
	}
	fromJSON, err := of.fromJSON(line)
	if err != nil {
		t.Fatalf("JSON that was written can not be read: %v", err)
	}
	for way, v := range map[string]any{"protobuf": again, "JSON": fromJSON} {
		if got, err := of.encode(v); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the value changed on its way through %s (err %v)", way, err)
		}
	}
}
