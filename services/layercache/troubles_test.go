package layercache

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pratique-sec/pratique/pkg/system"
)

// troubled is a bus with one trouble, that cannot be asked the first time.
type troubled struct {
	Bus
	asked int
	told  []string
}

func (b *troubled) Troubles(context.Context) ([]system.Notice, error) {
	if b.asked++; b.asked == 1 {
		return nil, errors.New("away")
	}
	return []system.Notice{{ID: "a", Kind: system.StreamFull, Subject: "FINDINGS"}}, nil
}

func (b *troubled) PublishSystem(_ context.Context, n system.Notice) error {
	b.told = append(b.told, n.ID)
	return nil
}

func TestTroublesAreToldAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &troubled{}
		s, err := New(Config{BusCheck: time.Minute}, Deps{Bus: b, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 150*time.Second) // looks at 0, 1 and 2 minutes
		defer stop()
		if err := s.watchBus(ctx); err != nil {
			t.Error(err)
		}
		if want := []string{"a", "a"}; b.asked != 3 || !slices.Equal(b.told, want) {
			t.Errorf("asked %d times, told %q, want %q", b.asked, b.told, want)
		}
	})
}
