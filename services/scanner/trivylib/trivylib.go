// Package trivylib is what everything that links Trivy's library must share: which version it is, and a place
// for its log. Trivy logs through slog's default logger, keeps every record in memory until somebody
// replaces it, and tells about files that it could not read nowhere else: only there can they be caught.
package trivylib

// Version is the library's. Its parsers and detectors change without a change of their own versions.
const Version = "0.74.0"
