package drive

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Door submits to ingest. Safe for concurrent use.
type Door struct {
	url    string // "http://127.0.0.1:8420"
	token  string // "" for none
	client *http.Client
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// NewDoor makes a door for the API at url. token is sent as a bearer token; "" for none.
func NewDoor(url, token string) *Door {
	return &Door{url: url, token: token, client: &http.Client{
		Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
}

// Close lets go of connections.
func (d *Door) Close() { d.client.CloseIdleConnections() }

// Notify tells of a pushed image as a registry does, and returns when that was stored.
func (d *Door) Notify(ctx context.Context, r image.Reference, img v1.Image) error {
	body, err := Notification(r, img)
	if err != nil {
		return err
	}
	_, err = d.post(ctx, "/v1/events/distribution", "application/vnd.docker.distribution.events.v2+json", body)
	return err
}

// Request asks for a scan and returns the id to follow it by.
func (d *Door) Request(ctx context.Context, r image.Reference) (string, error) {
	body, err := wire.ScanRequestJSON(wire.ScanRequest{Reference: r.String()})
	if err != nil {
		return "", err
	}
	answer, err := d.post(ctx, "/v1/scans", "application/json", body)
	if err != nil {
		return "", err
	}
	accepted, err := wire.ScanAcceptedFromJSON(answer)
	return accepted.ID, err
}

func (d *Door) post(ctx context.Context, path, mediaType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	req.Header.Set("Content-Type", mediaType)
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	answer, err := d.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("post %s: %s: %s", path, answer.Status, text)
	}
	return text, nil
}

// Notification is what CNCF Distribution sends when an image was pushed.
func Notification(r image.Reference, img v1.Image) ([]byte, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("notification: %w", err)
	}
	size, err := img.Size()
	if err != nil {
		return nil, fmt.Errorf("notification: %w", err)
	}
	type object = map[string]any
	describe := func(d v1.Descriptor) object {
		return object{"mediaType": d.MediaType, "digest": d.Digest.String(), "size": d.Size}
	}
	references := []object{describe(m.Config)}
	for _, l := range m.Layers {
		references = append(references, describe(l))
	}
	return json.Marshal(object{"events": []object{{
		"id": rand.Text(), "timestamp": time.Now().UTC().Format(time.RFC3339Nano), "action": "push",
		"target": object{
			"mediaType": m.MediaType, "digest": string(r.Digest), "size": size, "length": size, "repository": r.Repository,
			"url": "http://" + r.Host + "/v2/" + r.Repository + "/manifests/" + string(r.Digest), "tag": r.Tag, "references": references,
		},
		"request": object{"id": rand.Text(), "addr": "127.0.0.1:40000", "host": r.Host, "method": "PUT", "useragent": "pratique-loadtest"},
		"actor":   object{}, "source": object{"addr": r.Host, "instanceID": "loadtest"},
	}}})
}
