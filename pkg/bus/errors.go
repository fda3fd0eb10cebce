package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// Codes of JetStream's API that decide something here.
const (
	codeStreamExists   jetstream.ErrorCode = 10058 // with another configuration
	codeConsumerExists jetstream.ErrorCode = 10148
	codeConsumerInUse  jetstream.ErrorCode = 10105
	codeConsumerFailed jetstream.ErrorCode = 10012 // among others: the folder of the one just deleted goes away under it
	codeWrongLast      jetstream.ErrorCode = 10071 // the guard refused: "wrong last sequence: N"
	codeFull           jetstream.ErrorCode = 10077 // the subject or the whole stream is full: only the text tells
	codeClash          jetstream.ErrorCode = 10164 // the guard met another publish in flight
)

// textSubjectFull is what distinguishes "one is there" from "the stream is full" under codeFull.
const textSubjectFull = "maximum messages per subject exceeded"

// apiCode is 0 for nil and for every error that did not come from JetStream's API.
func apiCode(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

// isSubjectFull tells that a publish was refused because its subject holds a message already.
func isSubjectFull(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeFull && strings.Contains(api.Description, textSubjectFull)
}

// storeError gives a failed publish or write its decision. A time-out is "unknown": the client may
// still send what it buffered, so whoever repeats must be ready to find it stored.
func storeError(what string, err error) error {
	switch {
	case err == nil, errors.Is(err, errDead):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("bus: %s: %w", what, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return reason.Refusef(reason.OverBound, "bus: %s: larger than the server's max_payload: %w", what, err)
	case apiCode(err) == codeFull:
		return reason.Retryf(reason.BusUnavailable, "bus: %s: full; raise its size limit or drain it: %w", what, err)
	}
	return reason.Retryf(reason.BusUnavailable, "bus: %s: %w", what, err)
}
