package deploy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// askedFor are all of our metrics that rules and autoscalers ask for. That some process shows them is seen
// where all of them run.
func askedFor(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, r := range rules(t).Rules {
		all = append(all, metricsOf(t, r.Expr)...)
	}
	all = append(all, metricsOf(t, scaledObject(t).Spec.Triggers[0].Metadata["query"])...)
	all = append(all, adapterSeries(t)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// metricsOf are those of ours that an expression asks for.
func metricsOf(t *testing.T, expression string) []string {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	var all []string
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok && strings.HasPrefix(s.Name, "pratique_") {
			all = append(all, s.Name)
		}
		return nil
	})
	return all
}
