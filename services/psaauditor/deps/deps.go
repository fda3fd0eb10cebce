// Package deps pins dependencies while they are not used yet.
package deps

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/pratique-sec/pratique/pkg/bus"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "go.opentelemetry.io/otel/trace"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/sync/errgroup"
	_ "k8s.io/api/apps/v1"
	_ "k8s.io/api/batch/v1"
	_ "k8s.io/api/core/v1"
	_ "k8s.io/apimachinery/pkg/apis/meta/v1"
	_ "k8s.io/apimachinery/pkg/runtime/serializer"
	_ "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/pod-security-admission/api"
	_ "k8s.io/pod-security-admission/policy"
	_ "k8s.io/pod-security-admission/test"
	_ "pgregory.net/rapid"
	_ "sigs.k8s.io/yaml"
)
