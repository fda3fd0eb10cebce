// Package vulndb describes the databases that judgements rest on: which one is current, and how they
// are named and packed. The scanner alone opens one.
package vulndb

import "time"

// Kind is a database's kind and the name of its setting and object prefix.
type Kind string

const (
	Vulnerabilities Kind = "vulndb" // Trivy DB, schema 2: trivy.db and metadata.json
	Java            Kind = "javadb" // Trivy's Java index, schema 1: trivy-java.db and metadata.json
)

// Pointer says which database of a kind is current.
type Pointer struct {
	Kind       Kind
	Digest     string    // content digest "sha256:…" over the packed files (see Pack), and the object's name
	Size       int64     // of the object
	UpdatedAt  time.Time // the database's own word (metadata.json)
	NextUpdate time.Time
	LoadedAt   time.Time // when it became current: set by whoever stores the pointer
	Sequence   uint64    // grows with each load
}
