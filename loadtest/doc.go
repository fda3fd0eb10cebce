// Package loadtest measures the pipeline.
package loadtest
