package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
)

const (
	slow         = 10_000_000 // bytes a second of one connection
	scaleLayer   = 6_000_000  // largest layer: nobody is to be the last alone for long
	scaleBytes   = 400_000_000
	scaleBallast = 4_000_000 // bytes that do not compress, in layers that are nothing without
	scaleImage   = 4         // layers of an image
	mostScanners = 4
)

// scale lets 1, 2 and 4 scanner processes of one slot each read layers that nobody knows from a registry
// that sends slowly: what waits for the network must grow with the number of those who wait.
func scale(ctx context.Context, r *runner) error {
	programs, err := r.programs(ctx)
	if err != nil {
		return err
	}
	host, stop, err := r.registry.Serve(ctx, func(l net.Listener) net.Listener { return machine.Throttle(l, slow) })
	if err != nil {
		return err
	}
	defer stop()
	r.say("scale: preparing images")
	images, bytes, err := r.slowImages(ctx)
	if err != nil {
		return err
	}
	var one float64
	for n := 1; n <= mostScanners; n *= 2 {
		r.say(fmt.Sprintf("scale: %d scanners, one slot each", n))
		took, err := r.scanSlowly(ctx, programs, host, n, images)
		if err != nil {
			return err
		}
		rate := float64(bytes) / 1e6 / took.Seconds()
		if n == 1 {
			one = rate
		}
		row := figures.Row{
			ID: fmt.Sprintf("5%c", 'a'+n/2), Name: fmt.Sprintf("%d × one-slot scanner, registry at 10 MB/s a connection", n),
			Ours: figures.Value{Number: rate, Unit: "MB/s"}, Peer: figures.Value{Number: one, Unit: "MB/s"}, Ratio: rate / one,
		}
		if n < mostScanners {
			row = row.Free()
		} else {
			row = row.AtLeast(3.6)
			row.Note = fmt.Sprintf("processes of one slot each; %d MB in layers of at most %d MB; peer: one scanner", bytes/1e6, scaleLayer/1_000_000)
		}
		r.row(row)
	}
	return nil
}

// slowImages are made of layers that no other image has.
func (r *runner) slowImages(ctx context.Context) (images []real.Image, bytes int64, err error) {
	ballast := 0
	if r.set.Small {
		ballast = scaleBallast
	}
	pool, err := real.NewPool(r.set, scaleLayer, ballast)
	if err != nil {
		return nil, 0, err
	}
	for n := 0; bytes < scaleBytes && n < maxScaleLayers; n += scaleImage {
		var layers []int
		for i := range scaleImage {
			layers = append(layers, n+i)
			l, err := pool.Layer(n + i)
			if err != nil {
				return nil, 0, err
			}
			size, err := l.Size()
			if err != nil {
				return nil, 0, err
			}
			bytes += size
		}
		img, err := pool.Image("1", layers...)
		if err != nil {
			return nil, 0, err
		}
		images = append(images, real.Image{Repository: "scale/app", Tag: fmt.Sprintf("v%d", n), Image: img})
	}
	return images, bytes, r.publish(ctx, images)
}

// maxScaleLayers bounds how many layers there are when all are small.
const maxScaleLayers = 600

func (r *runner) scanSlowly(ctx context.Context, programs drive.Programs, host string, scanners int, images []real.Image) (took time.Duration, err error) {
	dir, err := r.fresh("scale")
	if err != nil {
		return 0, err
	}
	c := &drive.Cluster{
		Embedded: drive.Embedded{Dir: dir, Hosts: []string{host}, Database: r.set.Database, Logger: r.logger()},
		Programs: programs, Scanners: scanners, Scanner: []string{"layerSlots: 1"},
	}
	there := *r
	there.host = host
	err = c.Run(ctx, func(ctx context.Context, s *drive.System) error {
		begin := time.Now()
		p, err := there.push(ctx, s, images)
		if err != nil {
			return err
		}
		_, err = p.wait(ctx, s)
		took = time.Since(begin)
		return err
	})
	return took, err
}
