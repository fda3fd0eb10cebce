package e2e

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/client"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// notice is what a test tells ingest in the place of a silent registry. The same notice told twice is
// one event.
type notice struct {
	id, action, repository, tag string
	digest                      image.Digest
	mediaType                   string
}

// notify tells of a push or a deletion as CNCF Distribution does, and returns when it is stored.
func (p *pipeline) notify(ctx context.Context, n notice) error {
	event := map[string]any{
		"id": n.id, "timestamp": now(), "action": n.action,
		"target":  map[string]any{"repository": n.repository, "tag": n.tag, "digest": n.digest, "mediaType": n.mediaType},
		"request": map[string]any{"host": p.host},
	}
	body, err := json.Marshal(map[string]any{"events": []any{event}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.api+"/v1/events/distribution", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("notice of %s %s:%s: %s", n.action, n.repository, n.tag, answer.Status)
	}
	return nil
}

// ask asks for a scan and returns the request's id.
func (p *pipeline) ask(ctx context.Context, reference string) (string, error) {
	c, err := p.asker()
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Scan(ctx, wire.ScanRequest{Reference: reference})
}

func (p *pipeline) asker() (*client.Client, error) {
	return client.New(client.Config{URL: "http://" + p.api, UserAgent: "e2e", Poll: 5 * time.Millisecond})
}

// store writes an image or index to the registry under a tag, or under its digest when tag is "".
func (p *pipeline) store(ctx context.Context, repository, tag string, i demodata.Image) error {
	d, err := digestOf(i)
	if err != nil {
		return err
	}
	reference := p.host + "/" + repository + ":" + tag
	if tag == "" {
		reference = p.host + "/" + repository + "@" + string(d)
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return err
	}
	if i.Index != nil {
		return remote.WriteIndex(ref, i.Index, remote.WithContext(ctx))
	}
	return remote.Write(ref, i.Image, remote.WithContext(ctx))
}

// digestOf is the digest of what a push of the image names: an index's own.
func digestOf(i demodata.Image) (image.Digest, error) {
	var named interface{ Digest() (v1.Hash, error) } = i.Image
	if i.Index != nil {
		named = i.Index
	}
	d, err := named.Digest()
	return image.Digest(d.String()), err
}
