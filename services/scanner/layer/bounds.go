package layer

// Bounds limit what one layer may cost. They are part of the analysis id: other bounds, other facts.
// A layer that is over one of the first group is refused; a file that is over one of the second is not
// read, and facts say so.
type Bounds struct {
	Uncompressed int64 // bytes of the layer's tar, and again of the files that are opened
	Ratio        int64 // uncompressed bytes for each compressed one, above 64 MiB
	Entries      int64
	PathBytes    int   // of one entry's name
	HiddenBytes  int64 // of all whiteouts' names together
	Facts        int64 // bytes of the encoded facts

	Text       int64 // a package list, JSON and everything else that a parser holds in memory
	Database   int64 // an rpm database
	Archive    int64 // a jar
	Executable int64
}

// DefaultBounds fit what registries hold: the largest layers in use are of a few GiB, rpm databases of
// some 100 MiB.
var DefaultBounds = Bounds{
	Uncompressed: 16 << 30,
	Ratio:        500,
	Entries:      2_000_000,
	PathBytes:    4096,
	HiddenBytes:  64 << 20,
	Facts:        256 << 20,
	Text:         32 << 20,
	Database:     512 << 20,
	Archive:      512 << 20,
	Executable:   1 << 30,
}

const (
	ratioFrom  = 64 << 20 // below, a high ratio is a small file of zeros
	maxNotRead = 1000     // named one by one; the rest is counted
)
