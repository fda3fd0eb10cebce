package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

// Manifests that are posted to ingest become findings, and what is mended in the next ones is resolved.
func TestManifestsFromPostToResolved(t *testing.T) {
	t.Parallel()
	manifest := func(fields string) string {
		return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: api}\nspec: {template: {spec: {" + fields +
			"securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: a, securityContext: " +
			"{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}}\n"
	}
	err := allinone.Run(t.Context(), allinone.Config{State: t.TempDir()}, allinone.Deps{Logger: slog.New(slog.DiscardHandler)}, func(ctx context.Context, s *allinone.System) error {
		ctx, cancel := context.WithTimeout(ctx, soon)
		defer cancel()
		var requests []string
		for _, body := range []string{manifest("hostNetwork: true, hostPID: true, "), manifest("hostNetwork: true, "), manifest("")} {
			id, err := postManifests(ctx, s.API+"/v1/manifests?cluster=prod&namespace=team-a", body)
			if err != nil {
				return err
			}
			requests = append(requests, id)
		}
		var got []string
		enough := errors.New("enough")
		err := s.Bus.WatchDeltas(ctx, 1, func(_ uint64, d finding.Delta) error {
			got = append(got, fmt.Sprintf("%s %v %s r%d", d.Transition, d.Asset.Workload, d.Finding.PodSecurity.Message, d.Finding.Revision))
			if d.Transition == finding.Resolved {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			return fmt.Errorf("saw only %q: %w", got, err)
		}
		if diff := cmp.Diff([]string{
			"opened {prod team-a Deployment api} host namespaces (hostNetwork=true, hostPID=true) r1",
			"changed {prod team-a Deployment api} host namespaces (hostNetwork=true) r2",
			"resolved {prod team-a Deployment api} host namespaces (hostNetwork=true) r3",
		}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var told []string
		err = s.Bus.WatchScans(ctx, 1, func(_ uint64, s finding.Scan) error {
			if told = append(told, s.Request); len(told) == len(requests) {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || !slices.Equal(told, requests) {
			t.Errorf("scans of requests %q, want %q; %v", told, requests, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func postManifests(ctx context.Context, url, body string) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/yaml")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct{ ID string }
	if resp.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("answered %s", resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer.ID, err
}
