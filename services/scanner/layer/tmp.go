package layer

import (
	_ "github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	_ "github.com/aquasecurity/trivy/pkg/fanal/artifact"
	_ "github.com/aquasecurity/trivy/pkg/fanal/handler"
	_ "github.com/aquasecurity/trivy/pkg/fanal/walker"
	_ "github.com/aquasecurity/trivy/pkg/javadb"
	_ "github.com/google/go-containerregistry/pkg/v1/remote"
	_ "github.com/klauspost/compress/zstd"
)
