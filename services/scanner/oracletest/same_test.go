package oracletest_test

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/scanner/match"
	"github.com/pratique-sec/pratique/services/scanner/oracletest"
)

// On every image of the corpus, with two databases, we must say exactly what Trivy says.
func TestSameAsTrivyOnCorpus(t *testing.T) {
	databases := oracletest.Shared(t, "vulndb")
	address, names := oracletest.Corpus(t)
	oracle := oracletest.Build(t)
	d := newDirect(t)
	for _, file := range []string{"trivy-db.tar.gz", "trivy-db-old.tar.gz"} {
		t.Run(file, func(t *testing.T) {
			folder := d.load(t, filepath.Join(databases, file))
			vulnerabilities := 0
			for _, name := range names {
				t.Run(name, func(t *testing.T) {
					got, err := d.scan(t.Context(), address+"/"+name)
					if err != nil {
						t.Fatal(err)
					}
					same(t, oracle.Scan(t.Context(), t, folder, address+"/"+name), got)
					for _, n := range got.NotRead {
						t.Errorf("not read: %+v", n)
					}
					vulnerabilities += got.Count().Total()
				})
			}
			if vulnerabilities == 0 {
				t.Error("nothing was found in the whole corpus: the comparison proves nothing")
			}
		})
	}
}

// same compares the records that subscribers go by, and then, through our export, every record whole.
func same(t *testing.T, want types.Report, got *report.Report) {
	t.Helper()
	if d := cmp.Diff(oracletest.OfTrivy(want), oracletest.OfReport(got)); d != "" {
		t.Errorf("Trivy's records (-) and ours (+):\n%s", d)
	}
	exported, err := match.TrivyReport(got)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(comparable(t, want), comparable(t, exported)); d != "" {
		t.Errorf("Trivy's report (-) and our export (+):\n%s", d)
	}
}

// known is nil for the year 1, by which some databases say that they do not know.
func known(t *time.Time) *time.Time {
	if t == nil || t.IsZero() {
		return nil
	}
	return t
}

// comparable is a report as JSON, without what a report of ours does not keep and what differs each time.
func comparable(t *testing.T, r types.Report) any {
	t.Helper()
	r.ReportID, r.Trivy.Version = "", ""
	r.CreatedAt = time.Time{}
	r.Metadata.Size = 0
	for i := range r.Metadata.Layers {
		r.Metadata.Layers[i].Size = 0
	}
	for i := range r.Results {
		for j := range r.Results[i].Packages {
			p := &r.Results[i].Packages[j]
			p.InstalledFiles, p.BuildInfo, p.Digest = nil, nil, ""
		}
		for j := range r.Results[i].Vulnerabilities {
			v := &r.Results[i].Vulnerabilities[j]
			v.PublishedDate, v.LastModifiedDate = known(v.PublishedDate), known(v.LastModifiedDate)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	metadata, ok := out["Metadata"].(map[string]any)
	if !ok {
		t.Fatal("a report without metadata")
	}
	delete(metadata, "ImageConfig") // of it we keep what scanning needed
	return out
}
