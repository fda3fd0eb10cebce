package plan

// Bounds of what is read. They are far above what honest images have (a running image has at most 500
// layers, the kernel's limit for overlays) and keep one job's memory within some tens of megabytes.
const (
	maxManifest  = 4 << 20 // bytes; what registries accept themselves
	maxConfig    = 8 << 20 // bytes; history lines of generated Dockerfiles are long
	maxLayers    = 1000
	maxLayerSize = 64 << 30 // compressed bytes that a layer may claim
	maxCreatedBy = 4 << 10  // bytes of a history line that are kept: with maxLayers, half of a message
	maxWidth     = 512      // entries of an index, those of indexes inside it included
	maxDepth     = 3        // indexes inside each other, the outermost included
	maxOpened    = 32       // manifests that choosing from an index may read
	maxEntries   = 4096     // of any JSON array: decoding stops there, before memory is spent on more
)
