package match

import (
	_ "github.com/aquasecurity/trivy-db/pkg/db"
	_ "github.com/aquasecurity/trivy/pkg/fanal/applier"
	_ "github.com/aquasecurity/trivy/pkg/fingerprint"
	_ "github.com/aquasecurity/trivy/pkg/scan/langpkg"
	_ "github.com/aquasecurity/trivy/pkg/scan/ospkg"
	_ "github.com/aquasecurity/trivy/pkg/vulnerability"
)
