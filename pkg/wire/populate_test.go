package wire

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Domain values are made by reflection, so that a field which somebody adds is in every test here
// the moment it exists.

// required lists what decoding demands, by the struct that holds it.
var required = map[reflect.Type][]string{
	reflect.TypeFor[event.Event]():        {"ID", "Reference.Host", "Reference.Repository"},
	reflect.TypeFor[work.ImageJob]():      {"Lane", "Reference.Host", "Reference.Repository"},
	reflect.TypeFor[work.LayerJob]():      {"Key", "Host", "Repository", "Lane", "Layer.Blob"},
	reflect.TypeFor[work.MatchJob]():      {"Lane", "Image.Host", "Image.Repository", "Image.Digest"},
	reflect.TypeFor[work.Notice]():        {"Key"},
	reflect.TypeFor[facts.Layer]():        {"DiffID", "Analysis"},
	reflect.TypeFor[facts.Record]():       {"Blob", "DiffID"},
	reflect.TypeFor[facts.Verdict]():      {"Key", "Code"},
	reflect.TypeFor[report.Report]():      {"Image.Digest"},
	reflect.TypeFor[finding.Asset]():      {"Host", "Repository", "Track"},
	reflect.TypeFor[finding.Workload]():   {"Cluster", "Kind", "Name"},
	reflect.TypeFor[finding.Finding]():    {"ID"},
	reflect.TypeFor[finding.Delta]():      {"EventID", "Transition"},
	reflect.TypeFor[finding.Scan]():       {"ID"},
	reflect.TypeFor[event.Manifests]():    {"Cluster"},
	reflect.TypeFor[track.Record]():       {"Host", "Repository", "Track"},
	reflect.TypeFor[breaker.State]():      {"Host"},
	reflect.TypeFor[vulndb.Pointer]():     {"Kind", "Digest"},
	reflect.TypeFor[system.Notice]():      {"ID", "Kind"},
	reflect.TypeFor[system.DeadLetter]():  {"ID", "Reason"},
	reflect.TypeFor[alert.Alert]():        {"ID"},
	reflect.TypeFor[alert.Place]():        {"ID"},
	reflect.TypeFor[alert.Group]():        {"ID", "Receiver"},
	reflect.TypeFor[alert.Due]():          {"Group"},
	reflect.TypeFor[alert.Notification](): {"ID", "Group"},
	reflect.TypeFor[alert.Attempt]():      {"ID"},
	reflect.TypeFor[ScanRequest]():        {"Reference"},

	reflect.TypeFor[finding.PodSecurity](): {"Check"},
}

// vocabularies are the words of each domain enum.
var vocabularies = map[reflect.Type][]string{
	reflect.TypeFor[event.Kind]():         words(eventKinds),
	reflect.TypeFor[event.Action]():       words(actions),
	reflect.TypeFor[event.Cause]():        words(causes),
	reflect.TypeFor[work.Lane]():          words(lanes),
	reflect.TypeFor[work.Class]():         words(costClasses),
	reflect.TypeFor[vulndb.Kind]():        words(databaseKinds),
	reflect.TypeFor[report.Outcome]():     words(outcomes),
	reflect.TypeFor[finding.Class]():      words(findingClasses),
	reflect.TypeFor[finding.Transition](): words(transitions),
	reflect.TypeFor[finding.Resolution](): words(resolutions),
	reflect.TypeFor[fate.Stage]():         words(stages),
}

func words[D ~string, W ~int32](n enum[D, W]) []string {
	var out []string
	for d := range n.wire {
		out = append(out, string(d))
	}
	slices.Sort(out)
	return out
}

// A source gives the leaves of a value.
type source interface {
	text() string
	whole(low, high int64) int64
	real() float64
	length() int   // of a slice or map; 0 leaves it nil
	present() bool // an optional value
}

func populate(t testing.TB, v reflect.Value, s source, must bool) {
	_, moment := v.Interface().(time.Time)
	whole := v.Kind() == reflect.Struct && !moment // whose fields decide for themselves
	if !must && !whole && !s.present() {
		return
	}
	switch v.Interface().(type) {
	case image.Digest:
		v.SetString(fmt.Sprintf("sha256:%064x", s.whole(0, math.MaxInt64)))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(s.whole(-62135596799, 253402300799), s.whole(0, 999_999_999)).UTC()))
		return
	case report.Severity:
		v.SetInt(s.whole(int64(report.Low), int64(report.Critical)))
		return
	case []byte:
		v.SetBytes([]byte("\x00" + s.text()))
		return
	}
	if vocabulary, ok := vocabularies[v.Type()]; ok {
		v.SetString(vocabulary[s.whole(0, int64(len(vocabulary)-1))])
		return
	}
	switch v.Kind() {
	case reflect.String:
		text := s.text()
		if must && text == "" {
			text = "x"
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int: // counts, which the wire holds in 32 bits
		v.SetInt(s.whole(1, math.MaxInt32))
	case reflect.Int64:
		v.SetInt(s.whole(1, math.MaxInt64))
	case reflect.Uint64:
		v.SetUint(uint64(s.whole(1, math.MaxInt64)))
	case reflect.Float64:
		v.SetFloat(s.real())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		populate(t, v.Elem(), s, true)
	case reflect.Slice:
		for range s.length() {
			element := reflect.New(v.Type().Elem()).Elem()
			populate(t, element, s, element.Type() == reflect.TypeFor[image.Digest]())
			v.Set(reflect.Append(v, element))
		}
	case reflect.Map:
		n := s.length()
		if n > 0 {
			v.Set(reflect.MakeMap(v.Type()))
		}
		for range n {
			key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			populate(t, key, s, true)
			populate(t, element, s, false)
			v.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				t.Fatalf("%s.%s can not travel: it is not exported", v.Type(), v.Type().Field(i).Name)
			}
			populate(t, v.Field(i), s, false)
		}
		for _, path := range required[v.Type()] {
			field := v
			for name := range strings.SplitSeq(path, ".") {
				field = field.FieldByName(name)
			}
			if field.IsZero() {
				populate(t, field, s, true)
			}
		}
	default:
		t.Fatalf("%s: this test does not know how to fill a %s", v.Type(), v.Kind())
	}
}

// full gives every leaf a value of its own.
type full struct{ n int64 }

func (f *full) text() string  { f.n++; return fmt.Sprintf("text-%d", f.n) }
func (f *full) real() float64 { f.n++; return float64(f.n) + 0.5 }
func (f *full) length() int   { return 2 }
func (f *full) present() bool { return true }
func (f *full) whole(low, high int64) int64 {
	f.n++
	if high-low < 0 || f.n <= high-low { // the width may not fit
		return max(low, 0) + f.n
	}
	return low + f.n%(high-low+1)
}

func filled(t testing.TB, f form) any {
	v := reflect.New(f.value).Elem()
	populate(t, v, &full{}, true)
	return v.Interface()
}

// drawn takes leaves from rapid. Its text is UTF-8, unless hostile.
type drawn struct {
	t       *rapid.T
	hostile bool
}

var (
	anyText = rapid.String()
	anyByte = rapid.Byte()
)

func (d drawn) text() string {
	if d.hostile {
		return string(rapid.SliceOfN(anyByte, 0, 12).Draw(d.t, "bytes"))
	}
	return anyText.Draw(d.t, "text")
}

func (d drawn) whole(low, high int64) int64 {
	return rapid.Int64Range(low, high).Draw(d.t, "whole")
}
func (d drawn) real() float64 { return rapid.Float64().Draw(d.t, "real") }
func (d drawn) length() int   { return rapid.IntRange(0, 2).Draw(d.t, "length") }
func (d drawn) present() bool { return rapid.IntRange(0, 3).Draw(d.t, "present") > 0 }

func (d drawn) value(t testing.TB, f form) any {
	v := reflect.New(f.value).Elem()
	populate(t, v, d, true)
	return v.Interface()
}
