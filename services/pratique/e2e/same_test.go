package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/oracletest"
)

// On the repository's own images, what comes out of the whole pipeline is what unmodified Trivy says.
func TestSameAsTrivyOnOwnImages(t *testing.T) { inBoth(t, sameAsTrivyOnOwnImages) }

func sameAsTrivyOnOwnImages(t *testing.T, start wiring) {
	oracle := oracletest.Build(t)
	cache := t.TempDir() // in the layout of Trivy's
	if err := demo.BuildDatabase(t.Context(), cache+"/db", demodata.Built); err != nil {
		t.Fatal(err)
	}
	p := start(t, options{noDatabase: true})
	p.load(cache + "/db")
	first, rebuilt := demoImages(t)
	p.push(first...)
	p.settle()
	p.push(rebuilt...)
	p.settle()
	records := 0
	for _, r := range p.reports(append(first, rebuilt...)...) {
		ref := r.Image.Host + "/" + r.Image.Repository + "@" + string(r.Image.Digest)
		want := oracletest.OfTrivy(oracle.Scan(t.Context(), t, cache, ref))
		if d := cmp.Diff(want, oracletest.OfReport(r)); d != "" {
			t.Errorf("%s: Trivy's records (-) and ours (+):\n%s", ref, d)
		}
		records += len(want)
	}
	if records < 500 {
		t.Errorf("only %d records: the comparison proves little", records)
	}
}
