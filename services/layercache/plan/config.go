package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// config is what an image's config says about its layers.
type config struct {
	platform  image.Platform
	created   time.Time // zero when it does not say
	diffIDs   []image.Digest
	createdBy []string // one a layer; nil when the history does not fit the layers
}

// Unknown stands for the platform of an image whose config names none.
var Unknown = image.Platform{OS: "unknown", Architecture: "unknown"}

func (o *opener) config(ctx context.Context, d descriptor) (config, error) {
	digest, err := image.ParseDigest(d.Digest)
	if err != nil {
		return config{}, reason.Refusef(reason.Malformed, "config.%w", err)
	}
	if d.Size < 0 {
		return config{}, reason.Refusef(reason.Malformed, "config.size: %d", d.Size)
	}
	if d.Size > maxConfig {
		return config{}, reason.Refusef(reason.OverBound, "config.size: %d bytes, at most %d", d.Size, maxConfig)
	}
	body, err := o.registry.Config(ctx, o.ref.Host, o.ref.Repository, digest, d.Size)
	if err != nil {
		return config{}, fmt.Errorf("config %s: %w", digest, err)
	}
	if len(body) > maxConfig {
		return config{}, reason.Refusef(reason.OverBound, "config %s: %d bytes, at most %d", digest, len(body), maxConfig)
	}
	c, err := parseConfig(body)
	if err != nil {
		return config{}, fmt.Errorf("config %s: %w", digest, err)
	}
	return c, nil
}

func parseConfig(body []byte) (config, error) {
	var raw struct {
		platform
		Created string `json:"created"`
		RootFS  struct {
			DiffIDs list[string] `json:"diff_ids"`
		} `json:"rootfs"`
		History list[historyLine] `json:"history"`
	}
	if err := json.Unmarshal(body, &raw); errors.Is(err, errTooMany) {
		return config{}, reason.Refusef(reason.OverBound, "%w", err)
	} else if err != nil {
		return config{}, reason.Refusef(reason.Malformed, "%w", err)
	}
	c := config{platform: Unknown, createdBy: createdBy(raw.History, len(raw.RootFS.DiffIDs))}
	if raw.OS != "" || raw.Architecture != "" {
		p, err := raw.parse()
		if err != nil {
			return config{}, reason.Refusef(reason.Malformed, "%w", err)
		}
		c.platform = p
	}
	// A date that is none is not worth failing an image for: nothing is decided by it.
	if t, err := time.Parse(time.RFC3339Nano, raw.Created); err == nil {
		c.created = t.UTC()
	}
	for i, s := range raw.RootFS.DiffIDs {
		d, err := image.ParseDigest(s)
		if err != nil {
			return config{}, reason.Refusef(reason.Malformed, "rootfs.diff_ids[%d]: %w", i, err)
		}
		c.diffIDs = append(c.diffIDs, d)
	}
	return c, nil
}

type historyLine struct {
	CreatedBy  string `json:"created_by"`
	EmptyLayer bool   `json:"empty_layer"`
}

// createdBy maps history lines to layers as Trivy does: lines that made no layer are left out, the
// classic builder's shell prefixes are cut, and when what remains does not fit the number of layers
// nothing is said at all, since any mapping would be a guess.
func createdBy(history []historyLine, layers int) []string {
	var out []string
	for _, h := range history {
		if h.EmptyLayer {
			continue
		}
		line := strings.TrimPrefix(h.CreatedBy, "/bin/sh -c ")
		out = append(out, clipLine(strings.TrimPrefix(line, "#(nop) ")))
	}
	if len(out) != layers {
		return nil
	}
	return out
}

// clipLine cuts a line at maxCreatedBy, between characters.
func clipLine(s string) string {
	if len(s) <= maxCreatedBy {
		return s
	}
	n := maxCreatedBy
	for n > maxCreatedBy-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
