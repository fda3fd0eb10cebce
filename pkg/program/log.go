package program

import (
	"fmt"
	"log/slog"
)

// Log says how logs are written, to standard error.
type Log struct {
	Format string     // text or json
	Level  slog.Level // least severe line: debug, info, warn or error
}

// Validate names every field that is wrong.
func (l Log) Validate() error {
	switch l.Format {
	case "text", "json":
		return nil
	}
	return fmt.Errorf("format: %q; want text or json", l.Format)
}
