package wire

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/work"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

const aDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func wantRefusal(t *testing.T, err error, code reason.Code, fragment string) {
	t.Helper()
	var r *reason.Error
	if !errors.As(err, &r) || r.Kind != reason.Refuse || r.Code != code {
		t.Fatalf("error is %v, want a refusal as %s", err, code)
	}
	if !strings.Contains(err.Error(), fragment) {
		t.Errorf("error %q does not say %q", err, fragment)
	}
}

func TestDecodingNamesTheField(t *testing.T) {
	where := &pb.Reference{Host: "registry.example", Repository: "team-a/api", Digest: aDigest}
	asset := &pb.Asset{Host: "registry.example", Repository: "team-a/api", Track: "main"}
	for want, m := range map[string]proto.Message{
		"decode Event: id: is required":                   &pb.Event{Reference: where},
		"decode Event: reference.host: is required":       &pb.Event{Id: "x"},
		"decode Event: reference.repository: is required": &pb.Event{Id: "x", Reference: &pb.Reference{Host: "h"}},
		"decode Event: reference.digest: ": &pb.Event{Id: "x", Reference: &pb.Reference{
			Host: "h", Repository: "r", Digest: "sha256:ABC",
		}},
		"decode Event: received: ": &pb.Event{Id: "x", Reference: where, Received: &timestamppb.Timestamp{
			Nanos: -1,
		}},
		"decode ImageJob: lane: is required":                   &pb.ImageJob{Reference: where},
		"decode ImageJob: asset.track: is required":            &pb.ImageJob{Reference: where, Asset: &pb.Asset{Host: "h", Repository: "r"}, Lane: 1},
		"decode LayerJob: layer.blob: is required":             &pb.LayerJob{Key: "k", Host: "h", Repository: "r", Lane: 1},
		"decode MatchJob: image.reference.digest: is required": &pb.MatchJob{Image: &pb.Image{Reference: &pb.Reference{Host: "h", Repository: "r"}}, Lane: 1},
		"decode MatchJob: image.layers[1].diff_id: ": &pb.MatchJob{Lane: 1, Image: &pb.Image{
			Reference: where, Layers: []*pb.Layer{{}, {DiffId: "md5:1"}},
		}},
		"decode LayerNotice: key: is required":               &pb.LayerNotice{},
		"decode Facts: diff_id: is required":                 &pb.Facts{Analysis: "a"},
		"decode Record: diff_id: is required":                &pb.Record{Blob: aDigest},
		"decode Verdict: code: is required":                  &pb.Verdict{Key: "k"},
		"decode Report: image.reference.digest: is required": &pb.Report{},
		"decode Report: image.reference.repository: is required": &pb.Report{
			Outcome: pb.Outcome_OUTCOME_FAILED, Image: &pb.Image{Reference: &pb.Reference{Host: "h"}},
		},
		"decode Report: results[0].vulnerabilities[1].published: ": &pb.Report{
			Image: &pb.Image{Reference: where},
			Results: []*pb.Result{{Vulnerabilities: []*pb.Vulnerability{
				{}, {Published: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
			}}},
		},
		"decode Delta: asset.host: is required":      &pb.Delta{EventId: "x", Transition: 1, Finding: &pb.Finding{Id: "f"}},
		"decode Delta: finding.id: is required":      &pb.Delta{EventId: "x", Transition: 1, Asset: asset},
		"decode Delta: transition: is required":      &pb.Delta{EventId: "x", Asset: asset, Finding: &pb.Finding{Id: "f"}},
		"decode State: pending[0].old.layer: ":       &pb.State{Asset: asset, Pending: []*pb.Delta{{EventId: "x", Transition: 1, Asset: asset, Finding: &pb.Finding{Id: "f"}, Old: &pb.Finding{Id: "f", Layer: "no"}}}},
		"decode Scan: id: is required":               &pb.Scan{},
		"decode Fate: images[0].missing[1].digest: ": &pb.Fate{Images: []*pb.ImageFate{{Missing: []string{aDigest, "no"}}}},
		"decode Track: track: is required":           &pb.Track{Host: "h", Repository: "r"},
		"decode Pointer: kind: is required":          &pb.Pointer{Digest: aDigest},
		"decode Notice: kind: is required":           &pb.Notice{Id: "x"},
		"decode DeadLetter: reason: is required":     &pb.DeadLetter{Id: "x"},
	} {
		t.Run(want, func(t *testing.T) {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			v, err := formNamed(t, name(m)).decode(b)
			if err == nil {
				t.Fatalf("decoded %+v", v)
			}
			wantRefusal(t, err, reason.Malformed, want)
		})
	}
}

func TestDecodingRefusesBytesThatAreNoMessage(t *testing.T) {
	for _, f := range forms {
		if f.typeName == "" {
			continue // travels as JSON only
		}
		for _, b := range [][]byte{{0xff}, {0x0a, 0x7f}, {0x0a, 0x02, 0xff, 0xfe}} { // cut off; too short; no UTF-8
			if v, err := f.decode(b); err == nil {
				t.Errorf("%s: % x decoded to %+v", f.name, b, v)
			}
		}
	}
}

func TestEncodingRefusesWhatDecodingWould(t *testing.T) {
	_, err := EncodeReport(nil)
	wantRefusal(t, err, reason.Malformed, "encode Report: image.reference.digest: is required")

	where := image.Reference{Host: "registry.example", Repository: "team-a/api"}
	_, err = EncodeEvent(event.Event{ID: "x", Reference: where, Action: "repush"})
	wantRefusal(t, err, reason.Malformed, `encode Event: action: "repush" has no value in the schema`)

	_, err = EncodeMatchJob(work.MatchJob{Lane: work.Push, Image: image.Image{
		Reference: image.Reference{Host: "h", Repository: "r", Digest: aDigest},
		Layers:    []image.Layer{{Blob: aDigest}, {Blob: "sha256:short"}},
	}})
	wantRefusal(t, err, reason.Malformed, "encode MatchJob: image.layers[1].blob: ")

	_, err = EncodeDelta(finding.Delta{EventID: "x", Transition: finding.Opened, Finding: finding.Finding{ID: "f"}})
	wantRefusal(t, err, reason.Malformed, "encode Delta: asset.host: is required")
}

// What never resolved has no digest.
func TestFailingNeedsNoDigest(t *testing.T) {
	want := &report.Report{
		Image:   image.Image{Reference: image.Reference{Host: "h", Repository: "r", Tag: "1"}},
		Outcome: report.Failed, Reason: reason.NotFound,
	}
	line, err := ReportJSON(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReportFromJSON(line)
	if err != nil || got.Image.Reference != want.Image.Reference || got.Reason != want.Reason {
		t.Errorf("%+v, %v", got, err)
	}
}

// A closing job has no image any more.
func TestClosingNeedsNoDigest(t *testing.T) {
	j := work.MatchJob{
		Image: image.Image{Reference: image.Reference{Host: "h", Repository: "r"}},
		Close: string(finding.Deleted),
		Lane:  work.Push,
	}
	b, err := EncodeMatchJob(j)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeMatchJob(b); err != nil || got.Close != j.Close {
		t.Fatalf("got %+v, %v", got, err)
	}
}

// An image config may claim any time; a silly one must not stop the image.
func TestTimesThatProtobufCanNotSay(t *testing.T) {
	zone := time.FixedZone("east", 3*60*60)
	for _, test := range []struct{ in, want time.Time }{
		{time.Time{}, time.Time{}},
		{time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Unix(0, 0), time.Unix(0, 0).UTC()},
		{time.Date(2026, 5, 4, 3, 2, 1, 123456789, zone), time.Date(2026, 5, 4, 0, 2, 1, 123456789, time.UTC)},
	} {
		b, err := EncodeReport(&report.Report{
			Image: image.Image{Reference: image.Reference{Digest: aDigest}, Created: test.in},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeReport(b)
		if err != nil {
			t.Fatal(err)
		}
		if got.Image.Created != test.want {
			t.Errorf("%s came back as %s, want %s", test.in, got.Image.Created, test.want)
		}
	}
}

func TestCountsSaturate(t *testing.T) {
	if got := count(math.MaxInt); got != math.MaxInt32 {
		t.Errorf("count(MaxInt) = %d", got)
	}
	if got := count(math.MinInt); got != math.MinInt32 {
		t.Errorf("count(MinInt) = %d", got)
	}
}

// Fields of a newer schema are dropped, and nothing else is.
func TestFieldsOfANewerSchema(t *testing.T) {
	f := formNamed(t, "Scan")
	want := filled(t, f)
	b, err := f.encode(want)
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Concat(b, []byte{0xfa, 0x3f, 0x03, 'n', 'e', 'w'}) // field 1023
	got, err := f.decode(newer)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.encode(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(b) {
		t.Error("the value changed")
	}
}

func TestDecodedFactsShareNothing(t *testing.T) {
	f := formNamed(t, "Facts")
	b, err := f.encode(filled(t, f))
	if err != nil {
		t.Fatal(err)
	}
	l, err := DecodeFacts(b)
	if err != nil {
		t.Fatal(err)
	}
	want := string(l.Blob)
	clear(b)
	if string(l.Blob) != want {
		t.Error("the blob changed with the message's bytes")
	}
}
