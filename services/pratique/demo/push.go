package demo

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// pushers is how many images are pushed at once.
const pushers = 4

// Push pushes images to the registry at host ("127.0.0.1:5000") over plain HTTP, several at a time, and
// calls pushed (may be nil) after each, from several goroutines.
func Push(ctx context.Context, host string, images []demodata.Image, pushed func(demodata.Image)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pushers)
	for _, image := range images {
		g.Go(func() error {
			if err := push(ctx, host, image); err != nil {
				return fmt.Errorf("push %s: %w", image.Name(), err)
			}
			if pushed != nil {
				pushed(image)
			}
			return nil
		})
	}
	return g.Wait()
}

func push(ctx context.Context, host string, image demodata.Image) error {
	ref, err := name.NewTag(host+"/"+image.Name(), name.Insecure)
	if err != nil {
		return err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(http.DefaultTransport)}
	if image.Index != nil {
		return remote.WriteIndex(ref, image.Index, options...)
	}
	return remote.Write(ref, image.Image, options...)
}
