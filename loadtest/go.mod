module github.com/pratique-sec/pratique/loadtest

go 1.26.3

replace (
	github.com/pratique-sec/pratique/pkg => ../pkg
	github.com/pratique-sec/pratique/proto => ../proto
	github.com/pratique-sec/pratique/services/ingest => ../services/ingest
	github.com/pratique-sec/pratique/services/layercache => ../services/layercache
	github.com/pratique-sec/pratique/services/pratique => ../services/pratique
	github.com/pratique-sec/pratique/services/scanner => ../services/scanner
)
