// Package figures turns measurements into what people and machines read: quantiles, a table, JSON, and a
// page with charts that needs nothing from elsewhere.
package figures

import (
	"math"
	"slices"
	"time"
)

// Quantile is the smallest of the durations that at least the fraction q of them does not exceed; 0 of
// none. It sorts what it is given.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	i := int(math.Ceil(q*float64(len(all)))) - 1
	return all[min(max(i, 0), len(all)-1)]
}
