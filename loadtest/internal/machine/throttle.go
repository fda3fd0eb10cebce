package machine

import (
	"net"
	"time"
)

// Throttle makes a listener's connections send at most rate bytes a second, each for itself.
func Throttle(l net.Listener, rate int64) net.Listener { return throttled{l, rate} }

type throttled struct {
	net.Listener
	rate int64
}

func (t throttled) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, rate: t.rate}, nil
}

// slowConn is written to by one goroutine at a time, as net/http does. It has no ReadFrom: the kernel
// would send a file as fast as it can.
type slowConn struct {
	net.Conn
	rate int64
	free time.Time // when what was sent has been paid for
}

// burst is what may go out at once, in bytes.
const burst = 32 << 10

func (c *slowConn) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		part := b[sent:min(len(b), sent+burst)]
		now := time.Now()
		if wait := c.free.Sub(now); wait > 0 {
			<-time.After(wait)
		} else {
			c.free = now
		}
		c.free = c.free.Add(time.Duration(int64(len(part)) * int64(time.Second) / c.rate))
		n, err := c.Conn.Write(part)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
