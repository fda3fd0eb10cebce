package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/config"
)

// hangups are this process's SIGHUPs.
func hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1) // one that comes during a reload is not lost
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// pathLogLevel is reloadable in every process.
const pathLogLevel = "log.level"

type reloader struct {
	service  Service
	current  Configuration
	read     func() (Configuration, error)
	level    *slog.LevelVar
	log      *slog.Logger
	outcomes *prometheus.CounterVec
}

func newReloadMetrics(r prometheus.Registerer) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pratique_config_reloads_total", Help: "Reloads by SIGHUP: applied, or refused and the old configuration kept.",
	}, []string{"outcome"})
	r.MustRegister(v)
	for _, outcome := range []string{"applied", "refused"} {
		v.WithLabelValues(outcome)
	}
	return v
}

func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if err := r.reload(); err != nil {
				r.outcomes.WithLabelValues("refused").Inc()
				r.log.ErrorContext(ctx, "reload refused, the old configuration stays", slog.Any("error", err))
				continue
			}
			r.outcomes.WithLabelValues("applied").Inc()
			r.log.InfoContext(ctx, "configuration reloaded")
		}
	}
}

// reload takes over a new configuration as a whole or not at all.
func (r *reloader) reload() error {
	next, err := r.read()
	if err != nil {
		return err
	}
	var fixed []string
	for _, path := range config.Changed(r.current, next) {
		if path != pathLogLevel && !slices.ContainsFunc(r.service.Reloadable, func(p string) bool { return below(path, p) }) {
			fixed = append(fixed, path)
		}
	}
	if len(fixed) > 0 {
		return fmt.Errorf("%s: changed, which needs a restart", strings.Join(fixed, ", "))
	}
	if r.service.Reload != nil {
		if err := r.service.Reload(next); err != nil {
			return err
		}
	} else if len(config.Changed(r.current, next)) == 0 {
		return errors.New("nothing changed that this service could take over")
	}
	r.level.Set(next.Shared().Log.Level)
	r.current = next
	return nil
}

// below tells whether path is p or lies in it.
func below(path, p string) bool {
	return path == p || strings.HasPrefix(path, p+".")
}
