package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pratique-sec/pratique/pkg/image"
)

// A decoder turns messages into domain values. Its methods are named for the value. A nil message
// is an empty one.
type decoder struct{ cursor }

func (d *decoder) digest(field, s string) image.Digest {
	d.cursor.digest(field, image.Digest(s))
	return image.Digest(s)
}

// time is zero when it is absent.
func (d *decoder) time(field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if err := ts.CheckValid(); err != nil {
		d.fail(field, "%v", err)
		return time.Time{}
	}
	return ts.AsTime()
}
