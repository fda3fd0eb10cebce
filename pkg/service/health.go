package service

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Health knows whether a process can do its work. It is ready when every part that ever reported is.
// Safe for concurrent use; the zero value is ready.
type Health struct {
	mu    sync.Mutex
	parts map[string]error
}

// Set reports a part's state: nil is ready, an error says what it waits for.
func (h *Health) Set(part string, state error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts == nil {
		h.parts = map[string]error{}
	}
	h.parts[part] = state
}

// Ready is nil, or says of each part that is not ready why, sorted by part.
func (h *Health) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, part := range slices.Sorted(maps.Keys(h.parts)) {
		if err := h.parts[part]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
		}
	}
	return errors.Join(errs...)
}
