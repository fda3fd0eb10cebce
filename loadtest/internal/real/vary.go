package real

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Label is an image with one more label in its configuration: another digest, the same layers.
func Label(i v1.Image, value string) (v1.Image, error) {
	cfg, err := i.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("label image: %w", err)
	}
	cfg = cfg.DeepCopy()
	if cfg.Config.Labels == nil {
		cfg.Config.Labels = map[string]string{}
	}
	cfg.Config.Labels["org.opencontainers.image.revision"] = value
	out, err := mutate.ConfigFile(i, cfg)
	if err != nil {
		return nil, fmt.Errorf("label image: %w", err)
	}
	return out, nil
}
