package door

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

func (d *Door) getReports(w http.ResponseWriter, r *http.Request) {
	digest, err := image.ParseDigest(r.PathValue("digest"))
	if err != nil {
		d.fail(w, r, reason.Refusef(reason.BadRequest, "digest: %w", err))
		return
	}
	var platform image.Platform
	if s := r.URL.Query().Get("platform"); s != "" {
		if platform, err = image.ParsePlatform(s); err != nil {
			d.fail(w, r, reason.Refusef(reason.BadRequest, "platform: %w", err))
			return
		}
	}
	reports, err := d.bus.Reports(r.Context(), digest)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		d.fail(w, r, fmt.Errorf("reports: %w", err))
		return
	}
	var lines [][]byte
	for _, rep := range reports {
		if platform != (image.Platform{}) && rep.Image.Platform.Normal() != platform.Normal() {
			continue
		}
		line, err := wire.ReportJSON(rep)
		if err != nil {
			d.fail(w, r, fmt.Errorf("report: %w", err))
			return
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		d.fail(w, r, reason.Refusef(reason.NotFound, "no report for this digest and platform; an index has none itself, its platforms' manifests do"))
		return
	}
	contentType := "application/json"
	if len(lines) > 1 {
		contentType = "application/x-ndjson"
	}
	d.send(w, r, http.StatusOK, contentType, bytes.Join(lines, []byte("\n")))
}
