module github.com/pratique-sec/pratique/services/pratique

go 1.26.3

require (
	charm.land/lipgloss/v2 v2.0.6
	github.com/alecthomas/kong v1.17.0
	github.com/google/go-containerregistry v0.22.1
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/pratique-sec/pratique/pkg v0.0.0
	github.com/pratique-sec/pratique/proto v0.0.0
	github.com/pratique-sec/pratique/services/ingest v0.0.0
	github.com/pratique-sec/pratique/services/layercache v0.0.0
	github.com/pratique-sec/pratique/services/scanner v0.0.0
)

replace (
	github.com/pratique-sec/pratique/pkg => ../../pkg
	github.com/pratique-sec/pratique/proto => ../../proto
	github.com/pratique-sec/pratique/services/ingest => ../ingest
	github.com/pratique-sec/pratique/services/layercache => ../layercache
	github.com/pratique-sec/pratique/services/scanner => ../scanner
)
