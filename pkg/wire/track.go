package wire

import (
	"github.com/pratique-sec/pratique/pkg/track"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeTrack is the message type of a track.Record.
const TypeTrack = "pratique.v1.Track"

var trackCodec = codec[track.Record, *pb.Track]{(*encoder).track, (*decoder).track}

// EncodeTrack writes a track's record as a pratique.v1.Track.
func EncodeTrack(r track.Record) ([]byte, error) { return trackCodec.encode(r) }

// DecodeTrack reads what EncodeTrack wrote.
func DecodeTrack(b []byte) (track.Record, error) { return trackCodec.decode(b) }

func (c *cursor) checkTrack(r track.Record) {
	c.required("host", r.Host)
	c.required("repository", r.Repository)
	c.required("track", r.Track)
}

func (e *encoder) track(r track.Record) *pb.Track {
	e.checkTrack(r)
	return &pb.Track{
		Host:       text(r.Host),
		Repository: text(r.Repository),
		Track:      text(r.Track),
		Tag:        text(r.Tag),
		Digest:     e.digest("digest", r.Digest),
		Generation: r.Generation,
		Sequence:   r.Sequence,
		Updated:    stamp(r.Updated),
		Platforms:  each(&e.cursor, "platforms", r.Platforms, e.platform),
	}
}

func (d *decoder) track(m *pb.Track) track.Record {
	r := track.Record{
		Host:       m.GetHost(),
		Repository: m.GetRepository(),
		Track:      m.GetTrack(),
		Tag:        m.GetTag(),
		Digest:     d.digest("digest", m.GetDigest()),
		Generation: m.GetGeneration(),
		Sequence:   m.GetSequence(),
		Updated:    d.time("updated", m.GetUpdated()),
		Platforms:  each(&d.cursor, "platforms", m.GetPlatforms(), d.platform),
	}
	d.checkTrack(r)
	return r
}
