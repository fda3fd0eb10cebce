package peer

import (
	"fmt"
	"os"
	"path/filepath"
)

// Find looks for a file or folder of the repository ("services/scanner/oracle"), or beside it
// ("../shared/corpus"), from the present folder upwards.
func Find(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	for {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find %s: not above this folder", name)
		}
		dir = parent
	}
}
