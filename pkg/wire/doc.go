// Package wire maps domain values to their protobuf form (proto/pratique/v1) and back: one file per
// message family, a pair of functions per value. No other package touches generated code.
//
// Encoding is deterministic: equal values have equal bytes. Text that is no UTF-8 (paths in hostile
// layers) is made so with U+FFFD, and a time that protobuf can not say (before year 1, after 9999) is
// left out. Decoding validates: what it returns has well-formed digests and every required field.
// Both refuse a bad value with a reason.Malformed error that names its field; neither ever panics on
// input, and neither bounds its size, which is the reader's part.
//
// Empty and absent are one: an empty slice or map comes back nil, an absent time zero, an absent
// enum value "". An enum value of a newer schema comes back as "unrecognized-<number>": no constant
// equals it, so that it takes every switch's default, and it encodes to the same number again. Fields
// of a newer schema are dropped.
package wire
