package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds of every HTTP server: whoever is slower or sends more is cut off.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10 // bytes
)

// ServeHTTP serves h on l until ctx ends, then lets running requests end for as long as drain. With a
// certificate it speaks TLS. It closes l.
func ServeHTTP(ctx context.Context, l net.Listener, h http.Handler, t TLSFiles, drain time.Duration, log *slog.Logger) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // port scanners and broken clients
	}
	serve := s.Serve
	if t.Cert != "" {
		var err error
		if s.TLSConfig, err = t.Config(log); err != nil {
			return errors.Join(fmt.Errorf("http server on %s: tls.%w", l.Addr(), err), l.Close())
		}
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	served := make(chan error, 1)
	go func() { served <- serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("http server on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := s.Shutdown(ending); err != nil {
		return errors.Join(fmt.Errorf("http server on %s: drain: %w", l.Addr(), err), s.Close())
	}
	return nil
}
