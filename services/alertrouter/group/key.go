package group

import (
	"maps"
	"slices"

	"github.com/pratique-sec/pratique/pkg/key"
)

// ID names a group: by whom it is told and what its alerts have in common. Nothing else of the
// configuration is in it, so that moving, adding or rewording routes neither splits nor repeats a group.
func ID(receiver, integration string, labels map[string]string) string {
	fields := []string{receiver, integration}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fields = append(fields, name, labels[name])
	}
	return key.Of("alertgroup.v1", fields...)
}
