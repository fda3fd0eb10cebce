package registry

import "slices"

// preset is what is publicly known of a registry: where its tokens come from and where its downloads
// are redirected to. A preset allows nothing by itself: the registry must be configured.
type preset struct {
	host          string // name or pattern
	endpoint      string // who really serves it; "" for itself
	realms, blobs []string
}

var presets = []preset{
	{
		host: "docker.io", endpoint: "registry-1.docker.io",
		realms: []string{"auth.docker.io"},
		blobs: []string{
			"production.cloudflare.docker.com", "production.cloudfront.docker.com",
			"docker-images-prod.*.r2.cloudflarestorage.com",
		},
	},
	{host: "ghcr.io", blobs: []string{"pkg-containers.githubusercontent.com"}},
	{host: "quay.io", blobs: []string{"cdn*.quay.io", "quayio-production-s3.s3.amazonaws.com"}},
	{host: "registry.redhat.io", blobs: []string{"cdn*.quay.io"}},
	{host: "registry.access.redhat.com", blobs: []string{"cdn*.quay.io"}},
	{host: "registry.gitlab.com", realms: []string{"gitlab.com"}, blobs: []string{"cdn.registry.gitlab-static.net", "storage.googleapis.com"}},
	{host: "registry.k8s.io", blobs: []string{"*-docker.pkg.dev", "prod-registry-k8s-io-*.s3.dualstack.*.amazonaws.com", "storage.googleapis.com"}},
	{host: "mcr.microsoft.com", blobs: []string{"*.data.mcr.microsoft.com"}},
	{host: "*.azurecr.io", blobs: []string{"*.blob.core.windows.net", "*.data.azurecr.io"}},
	{host: "public.ecr.aws", blobs: []string{"d2glxqk2uabbnd.cloudfront.net", "d5l0dvt14r5h8.cloudfront.net"}},
	{host: "*.dkr.ecr.*.amazonaws.com", blobs: []string{"prod-*-starport-layer-bucket.s3.*.amazonaws.com"}},
	{host: "gcr.io", blobs: []string{"storage.googleapis.com"}},
	{host: "*.gcr.io", blobs: []string{"storage.googleapis.com"}},
	{host: "*-docker.pkg.dev", blobs: []string{"storage.googleapis.com"}},
	{host: "registry.*.aliyuncs.com", realms: []string{"dockerauth.*.aliyuncs.com"}, blobs: []string{"aliregistry*.oss-*.aliyuncs.com"}},
}

// presetOf returns the preset of a registry; the zero one for most.
func presetOf(host string) preset {
	i := slices.IndexFunc(presets, func(p preset) bool { return matches(p.host, host) })
	if i < 0 {
		return preset{}
	}
	return presets[i]
}
