// Package demodata makes small, real container images in process, and the advisories that hit them:
// what the demo pushes and the end-to-end tests scan. It needs no network, no container engine and no
// file outside the program.
//
// The images hold package metadata (dpkg and apk databases, package.json files, Python metadata, Go
// build information) and nothing that runs. They share layers as images of one company do. Digests
// are the same on every machine: times are fixed and files are sorted. data/NOTICE.md says where
// each file comes from.
package demodata

import (
	"embed"
	"fmt"
	"io/fs"
	"time"
)

//go:embed data
var data embed.FS

// Built is the creation time of every image, and the date of the advisories.
var Built = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Advisories is a folder with adv.jsonl (what is affected) and vuln.jsonl (descriptions): JSON lines in
// the form that services/scanner/advisory/build reads.
func Advisories() fs.FS {
	sub, err := fs.Sub(data, "data/advisories")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return sub
}

func read(name string) ([]byte, error) {
	b, err := data.ReadFile("data/" + name)
	if err != nil {
		return nil, fmt.Errorf("demodata: %w", err)
	}
	return b, nil
}
