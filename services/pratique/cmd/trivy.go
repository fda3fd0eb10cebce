package cmd

import (
	"encoding/json" // version 1: Trivy's types are written with it by Trivy

	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/scanner/match"
)

// trivyJSON is Trivy's own report, indented as Trivy prints it.
func trivyJSON(r *report.Report) ([]byte, error) {
	t, err := match.TrivyReport(r)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(t, "", "  ")
}
