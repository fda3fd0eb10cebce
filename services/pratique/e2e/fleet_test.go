package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// step is something that happens in the registry and is told to ingest.
type step struct {
	event.Action
	image   demodata.Image // pushed to its tag, or whose tag is deleted
	request bool           // asked for as a scan, in the place of a notification

	cluster   string // whose manifests are posted, in the place of all that
	manifests string
}

// about names the tag or the cluster.
func (s step) about() string {
	if s.cluster != "" {
		return s.cluster
	}
	return s.image.Name()
}

// digests of the images that it is about.
func (s step) digests(t testing.TB) []image.Digest {
	t.Helper()
	if s.cluster != "" {
		return nil
	}
	return digests(t, []demodata.Image{s.image})
}

// history is what happens to a fleet: steps of one tag, or one cluster, are in their order.
type history []step

// fleet makes the history of n tags whose images share layers. Every fourth tag moves on to an image of
// its own, and every twelfth is deleted in the end; every fifth is an index of two platforms. A third is
// asked for, the rest is told by the registry; what is deleted is only told: a request that is planned late
// would rightly fail.
func fleet(t *testing.T, n int) history {
	t.Helper()
	first, rebuilt := demoImages(t)
	layers := func(i demodata.Image) []v1.Layer {
		images, err := i.Images()
		if err != nil {
			t.Fatal(err)
		}
		all, err := images[0].Layers()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	bases := []v1.Layer{layers(first[0])[0], layers(rebuilt[0])[0], layers(first[4])[0], layers(first[5])[0], layers(first[6])[0]}
	dependencies := [][]v1.Layer{{layers(first[0])[1]}, {layers(first[2])[1]}, {layers(rebuilt[0])[1]}, {layers(first[4])[1]}, nil}
	library := func(path, version string) v1.Layer {
		return layerOf(t, path+"/node_modules/lodash/package.json", fmt.Sprintf(`{"name":"lodash","version":%q,"license":"MIT"}`, version))
	}
	build := func(k, version int) demodata.Image {
		all := slices.Concat([]v1.Layer{bases[(k+version)%len(bases)]}, dependencies[(k/2)%len(dependencies)], []v1.Layer{
			library(fmt.Sprintf("srv/team-%d", k%9), fmt.Sprintf("4.17.%d", k%9)),
			library(fmt.Sprintf("srv/app-%d-%d", k, version), fmt.Sprintf("4.16.%d", (k+3*version)%7)),
		})
		i := demodata.Image{Repository: fmt.Sprintf("team-%d/app-%d", k%9, k), Tag: "main", Image: imageOf(t, all...)}
		if k%5 == 0 {
			i.Image, i.Index = nil, indexOf(t, i.Image, imageFor(t, "arm64", all...))
		}
		return i
	}
	var h history
	for k := range n {
		h = append(h, step{Action: event.Push, image: build(k, 0), request: k%3 == 0 && k%12 != 4})
		if k%4 == 0 {
			h = append(h, step{Action: event.Push, image: build(k, 1), request: k%8 == 0 && k%12 != 4})
		}
		if k%12 == 4 {
			h = append(h, step{Action: event.Delete, image: build(k, 1)})
		}
	}
	for k := range n / 6 {
		cluster := fmt.Sprintf("cluster-%d", k)
		h = append(h, step{cluster: cluster, manifests: workloads(true)}, step{cluster: cluster, manifests: workloads(false)})
	}
	return h
}

// workloads are two, one of which is mended when it is not bad any more.
func workloads(bad bool) string {
	const deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s, namespace: shop}, spec: {selector: {matchLabels: {a: b}}, " +
		"template: {metadata: {labels: {a: b}}, spec: {hostNetwork: %t, containers: [{name: c, image: i, securityContext: {privileged: %t}}]}}}}\n"
	return fmt.Sprintf(deployment+"---\n"+deployment, "web", bad, bad, "agent", true, false)
}

func imageFor(t *testing.T, architecture string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := imageOf(t, layers...)
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture = architecture
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

func indexOf(t *testing.T, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: cfg.Platform()}})
	}
	return index
}

// shuffled is another order in which the same can happen: the tags' steps are mixed, each tag's own stay
// in theirs.
func (h history) shuffled(r *rand.Rand) history {
	byTag := map[string]history{}
	var turns []string
	for _, s := range h {
		byTag[s.about()] = append(byTag[s.about()], s)
		turns = append(turns, s.about())
	}
	r.Shuffle(len(turns), func(a, b int) { turns[a], turns[b] = turns[b], turns[a] })
	var out history
	for _, tag := range turns {
		out = append(out, byTag[tag][0])
		byTag[tag] = byTag[tag][1:]
	}
	return out
}

// waves are the tags' first steps, their second ones, and so on.
func (h history) waves() []history {
	var all []history
	seen := map[string]int{}
	for _, s := range h {
		n := seen[s.about()]
		seen[s.about()]++
		if n == len(all) {
			all = append(all, nil)
		}
		all[n] = append(all[n], s)
	}
	return all
}

// images are all that are ever pushed, each once.
func (h history) images() []demodata.Image {
	var all []demodata.Image
	for _, s := range h {
		if s.Action == event.Push {
			all = append(all, s.image)
		}
	}
	return all
}

// final are the last steps of each tag and cluster.
func (h history) final() map[string]step {
	last := map[string]step{}
	for _, s := range h {
		last[s.about()] = s
	}
	return last
}

// layers are the digests of all layers.
func (h history) layers(t testing.TB) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, i := range h.images() {
		images, err := i.Images()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range images {
			layers, err := img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range layers {
				d, err := l.Digest()
				if err != nil {
					t.Fatal(err)
				}
				all[d.String()] = true
			}
		}
	}
	return all
}

// teller tells ingest what happened, as registries do: again and again until it is accepted. It stands
// before several replicas, as a load balancer does.
type teller struct {
	apis  []string
	ready func(api string) bool // nil: all are tried
	mu    sync.Mutex
	// accepted requests, by id
	requests map[string]step
	refused  []string // answers other than success, and the reasons
}

// happen makes a step happen and has it accepted.
func (p *pipeline) happen(ctx context.Context, s step, to *teller) error {
	if s.cluster != "" {
		return to.tell(ctx, func(api string) error {
			_, err := postManifests(ctx, "http://"+api+"/v1/manifests?cluster="+s.cluster, s.manifests)
			return err
		})
	}
	if s.Action == event.Delete {
		if err := p.untag(ctx, s.image); err != nil {
			return err
		}
	} else if err := p.store(ctx, s.image.Repository, s.image.Tag, s.image); err != nil {
		return err
	}
	d, err := digestOf(s.image)
	if err != nil {
		return err
	}
	mediaType := types.OCIManifestSchema1
	if s.image.Index != nil {
		mediaType = types.OCIImageIndex
	}
	if s.Action == event.Delete { // of a tag: registries do not say what it pointed to
		d, mediaType = "", ""
	}
	n := notice{id: fmt.Sprintf("%s %s %s", s.Action, s.image.Name(), d), action: string(s.Action), repository: s.image.Repository, tag: s.image.Tag, digest: d, mediaType: string(mediaType)}
	return to.tell(ctx, func(api string) error {
		one := &pipeline{t: p.t, api: api, host: p.host}
		if !s.request {
			return one.notify(ctx, n)
		}
		id, err := one.ask(ctx, p.host+"/"+s.image.Name())
		if err == nil {
			to.mu.Lock()
			to.requests[id] = s
			to.mu.Unlock()
		}
		return err
	})
}

// patience is how long a sender tries.
const patience = 2 * time.Minute

func (to *teller) tell(ctx context.Context, post func(api string) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var errs []error
		for _, k := range rand.Perm(len(to.apis)) {
			if to.ready != nil && !to.ready(to.apis[k]) {
				continue
			}
			err := post(to.apis[k])
			if err == nil {
				return nil
			}
			errs = append(errs, err)
			if !dead(err) {
				to.mu.Lock()
				to.refused = append(to.refused, err.Error())
				to.mu.Unlock()
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("never accepted: %w", errors.Join(errs...))
		}
	}
}

// dead tells whether nobody answered.
func dead(err error) bool {
	text := err.Error()
	return strings.Contains(text, "connection refused") || strings.Contains(text, "EOF") || strings.Contains(text, "connection reset")
}

// untag deletes a tag, if it is there. The image stays: what follows may be late.
func (p *pipeline) untag(ctx context.Context, i demodata.Image) error {
	tag, err := name.NewTag(p.host+"/"+i.Name(), name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Delete(tag, remote.WithContext(ctx)); err != nil && !strings.Contains(err.Error(), "UNKNOWN") {
		return err
	}
	return nil
}
