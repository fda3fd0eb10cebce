module github.com/pratique-sec/pratique/loadtest

go 1.26.3

require (
	github.com/pratique-sec/pratique/pkg v0.0.0
	github.com/pratique-sec/pratique/proto v0.0.0
	github.com/pratique-sec/pratique/services/ingest v0.0.0
	github.com/pratique-sec/pratique/services/layercache v0.0.0
	github.com/pratique-sec/pratique/services/pratique v0.0.0
	github.com/pratique-sec/pratique/services/scanner v0.0.0
)

replace (
	github.com/pratique-sec/pratique/pkg => ../pkg
	github.com/pratique-sec/pratique/proto => ../proto
	github.com/pratique-sec/pratique/services/ingest => ../services/ingest
	github.com/pratique-sec/pratique/services/layercache => ../services/layercache
	github.com/pratique-sec/pratique/services/pratique => ../services/pratique
	github.com/pratique-sec/pratique/services/scanner => ../services/scanner
)
