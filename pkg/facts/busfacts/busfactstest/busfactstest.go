// Package busfactstest gives tests durable fact stores on a real JetStream, cheaply: one server, whose
// buckets are emptied between them.
package busfactstest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
)

// streams are what a store writes to.
var streams = []string{"KV_facts", "KV_blobs", "KV_failures", "OBJ_facts"}

// Emptied answers an opener of empty stores. Opening one empties those before it.
func Emptied(t *testing.T) func(t *testing.T) facts.Store {
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	return func(t *testing.T) facts.Store {
		t.Helper()
		for _, s := range streams {
			API(t, nc, "STREAM.PURGE."+s, nil)
		}
		return busfacts.New(b)
	}
}

// API calls JetStream's own API: tests damage and shorten what the client library, and the bus, would
// not.
func API(t *testing.T, nc *nats.Conn, call string, request any) map[string]any {
	t.Helper()
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			t.Fatal(err)
		}
	}
	m, err := nc.Request("$JS.API."+call, body, 30*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", call, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		t.Fatalf("%s: %v", call, err)
	}
	if answer["error"] != nil {
		t.Fatalf("%s: %v", call, answer["error"])
	}
	return answer
}
