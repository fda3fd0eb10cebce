package wire

import (
	"github.com/pratique-sec/pratique/pkg/breaker"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeBreaker is the message type of a breaker.State.
const TypeBreaker = "pratique.v1.Breaker"

var breakerCodec = codec[breaker.State, *pb.Breaker]{(*encoder).breaker, (*decoder).breaker}

// EncodeBreaker writes what is known of a registry as a pratique.v1.Breaker.
func EncodeBreaker(s breaker.State) ([]byte, error) { return breakerCodec.encode(s) }

// DecodeBreaker reads what EncodeBreaker wrote.
func DecodeBreaker(b []byte) (breaker.State, error) { return breakerCodec.decode(b) }

func (e *encoder) breaker(s breaker.State) *pb.Breaker {
	e.required("host", s.Host)
	return &pb.Breaker{
		Host:       text(s.Host),
		Failing:    texts(s.Failing),
		Failed:     stamp(s.Failed),
		Error:      text(s.Error),
		Since:      stamp(s.Since),
		Until:      stamp(s.Until),
		Pauses:     count(s.Pauses),
		Closed:     stamp(s.Closed),
		Told:       s.Told,
		Probe:      text(s.Probe),
		ProbeUntil: stamp(s.ProbeUntil),
	}
}

func (d *decoder) breaker(m *pb.Breaker) breaker.State {
	d.required("host", m.GetHost())
	return breaker.State{
		Host:       m.GetHost(),
		Failing:    m.GetFailing(),
		Failed:     d.time("failed", m.GetFailed()),
		Error:      m.GetError(),
		Since:      d.time("since", m.GetSince()),
		Until:      d.time("until", m.GetUntil()),
		Pauses:     int(m.GetPauses()),
		Closed:     d.time("closed", m.GetClosed()),
		Told:       m.GetTold(),
		Probe:      m.GetProbe(),
		ProbeUntil: d.time("probe_until", m.GetProbeUntil()),
	}
}
