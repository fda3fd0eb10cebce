package door

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
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
	note(r, "digest", string(digest))
	reports, err := d.readable(r.Context(), callerOf(r), digest)
	if err != nil {
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

// readable are a digest's reports as the caller may see them. A report is kept once for all who hold its
// image, and names who had it judged last; a caller who may not read that repository sees his own in its
// place. He sees nothing at all of an image that no repository of his was confirmed to hold, failures
// included: of those, his scan request tells him.
func (d *Door) readable(ctx context.Context, caller *Caller, digest image.Digest) ([]*report.Report, error) {
	var own image.Reference
	if !caller.readsAll() {
		sources, err := d.bus.Sources(ctx, digest)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(sources, func(s image.Reference) bool { return caller.MayRead(s.Host, s.Repository) })
		if i < 0 {
			return nil, nil
		}
		own = sources[i]
	}
	all, err := d.bus.Reports(ctx, digest)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return nil, err
	}
	var visible []*report.Report
	for _, rep := range all {
		if !caller.MayRead(rep.Image.Host, rep.Image.Repository) {
			if rep.Outcome == report.Failed {
				continue // somebody else's failure says nothing about him
			}
			rep.Image.Host, rep.Image.Repository, rep.Image.Tag, rep.Image.Index = own.Host, own.Repository, "", ""
		}
		visible = append(visible, rep)
	}
	return visible, nil
}
