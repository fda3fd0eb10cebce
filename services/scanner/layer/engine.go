package layer

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	"github.com/aquasecurity/trivy/pkg/fanal/handler"
	"github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// walkVersion is of what this package itself does to facts: raise it when the same layer, under the same
// bounds, begins to have other facts.
const walkVersion = 1

// licenseConfidence is Trivy's default. Licenses of Debian packages are read even when nobody scans for
// licenses, and packages carry them.
const licenseConfidence = 0.9

// disabled is what `trivy image --scanners vuln` switches off: lock files (an image holds what was installed
// from them), configuration, secrets, and what would ask a network.
var disabled = slices.Concat(analyzer.TypeLockfiles, analyzer.TypeConfigFiles, []analyzer.Type{
	analyzer.TypeApkCommand, analyzer.TypeSecret, analyzer.TypeLicenseFile,
	analyzer.TypeHistoryDockerfile, analyzer.TypeExecutable, analyzer.TypeRpmArchive,
})

// binaries are the analyzers that want a file for its mode alone.
var binaries = []analyzer.Type{analyzer.TypeGoBinary, analyzer.TypeRustBinary}

// options of every single analysis. With checksums one set of facts serves reports and SBOMs.
var options = analyzer.AnalysisOptions{Offline: true, FileChecksum: true}

// engine is Trivy's analyzers. There is one in a process: some analyzers are singletons that each new group
// would configure again.
type engine struct {
	group    analyzer.AnalyzerGroup
	handlers handler.Manager
	post     []analyzer.Type // the post-analyzers, sorted
}

func theEngine(logger *slog.Logger) (*engine, error) {
	trivylib.Install(logger) // before: analyzers keep the logger that they are made with
	return newEngine()
}

var newEngine = sync.OnceValues(func() (*engine, error) {
	group, err := analyzer.NewAnalyzerGroup(analyzer.AnalyzerOptions{
		Parallel:             1,
		DisabledAnalyzers:    disabled,
		DetectionPriority:    types.PriorityPrecise,
		LicenseScannerOption: analyzer.LicenseScannerOption{ClassifierConfidenceLevel: licenseConfidence},
	})
	if err != nil {
		return nil, fmt.Errorf("layer: make analyzers: %w", err)
	}
	handlers, err := handler.NewManager(artifact.Option{})
	if err != nil {
		return nil, fmt.Errorf("layer: make handlers: %w", err)
	}
	e := &engine{group: group, handlers: handlers}
	for _, t := range slices.Sorted(maps.Keys(group.AnalyzerVersions().PostAnalyzers)) {
		e.post = append(e.post, analyzer.Type(t))
	}
	return e, nil
})

// depends lists all that facts depend on beside content. The Java index is in it because jars that do not
// name themselves are named from it during analysis.
type depends struct {
	Trivy             string
	Walk              int
	BlobSchema        int
	Analyzers         map[string]int
	PostAnalyzers     map[string]int
	Handlers          map[string]int
	Disabled          []analyzer.Type
	DetectionPriority types.DetectionPriority
	Offline           bool
	FileChecksum      bool
	LicenseConfidence float64
	Bounds            Bounds
	JavaIndex         string
}

func inputs(e *engine, c Config) depends {
	versions := e.group.AnalyzerVersions()
	return depends{
		Trivy: trivylib.Version, Walk: walkVersion, BlobSchema: types.BlobJSONSchemaVersion,
		Analyzers: versions.Analyzers, PostAnalyzers: versions.PostAnalyzers, Handlers: e.handlers.Versions(),
		Disabled: slices.Sorted(slices.Values(disabled)), DetectionPriority: types.PriorityPrecise,
		Offline: options.Offline, FileChecksum: options.FileChecksum, LicenseConfidence: licenseConfidence,
		Bounds: c.Bounds, JavaIndex: c.JavaDigest,
	}
}

// id hashes the inputs; JSON writes maps sorted and structs in order, so equal inputs are equal bytes.
func (d depends) id() (string, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("layer: encode what facts depend on: %w", err)
	}
	return key.Of("analysis.v1", string(b)), nil
}
