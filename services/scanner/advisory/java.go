package advisory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	java "github.com/aquasecurity/trivy-java-db/pkg/db"
	_ "modernc.org/sqlite" // the driver that the Java index's library leaves to its users

	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// EmptyJavaIndex writes a Java index without rows below folder, in the layout of a Trivy cache. Trivy refuses
// a whole layer with a jar in it when it has no index at all; with an empty one it still finds every jar
// that describes itself.
func EmptyJavaIndex(folder string) (err error) {
	l := layouts[vulndb.Java]
	dir := filepath.Join(folder, l.folder)
	index, err := java.New(dir)
	if err != nil {
		return fmt.Errorf("advisory: create Java index: %w", err)
	}
	if err := errors.Join(index.Init(), index.Close()); err != nil {
		return fmt.Errorf("advisory: create Java index: %w", err)
	}
	meta, err := metadata{
		Version:    l.schema,
		NextUpdate: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), // there is nothing to update
	}.canonical()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, metadataName), meta, 0o600); err != nil {
		return fmt.Errorf("advisory: write metadata of the Java index: %w", err)
	}
	return nil
}
